"""Leave the last fraction: the end of each user's history, in time, is held out.

Source: Meng et al. 2020, "Exploring data splitting strategies for the evaluation of recommendation
models" (there: temporal user split).
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.interactions import Interactions, Split
from fedrec_flower.splits import Negatives
from fedrec_flower.splits.fractions import check_fractions, least_history, num_held_out
from fedrec_flower.splits.histories import cut, num_later, require_histories
from fedrec_flower.splits.ordering import Ties, order_in_time


@dataclass(frozen=True, slots=True)
class LeaveLastFraction:
    """Hold out the last interactions of every user.

    Attributes:
        validation_fraction: of each history, rounded down, at least one interaction; 0 for no
            validation part.
        test_fraction: of each history, rounded down, at least one interaction.
        ties: what orders interactions at the same time: "hash" or "file_order" (the later row of
            the interactions is the later one).
        negatives: the pool of training negatives; "legacy" is leaky.

    Raises:
        ConfigError: if the fractions are impossible.
    """

    validation_fraction: float
    test_fraction: float
    ties: Ties
    negatives: Negatives

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction)

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction; `seed` is unused, nothing is drawn.

        Raises:
            DataError: if there are no timestamps, or a user has too few interactions.
        """
        del seed
        order = order_in_time(interactions, self.ties)
        require_histories(interactions, least_history(self.validation_fraction, self.test_fraction))
        lengths = np.bincount(interactions.user)[interactions.user]
        return cut(
            num_later(interactions.user, order),
            num_validation=num_held_out(lengths, self.validation_fraction),
            num_test=num_held_out(lengths, self.test_fraction),
        )
