"""Leave-one-out: each user's last interaction is test, the one before is validation.

Without validation it is trained on too, as one would before a deployment: what there is to choose
was chosen before, and the last round is tested.

Source: He et al. 2017, "Neural collaborative filtering", section 4.1. Ties in time (415 of the 943
users of MovieLens-100K tie at their last timestamp) break by a fixed hash, see `hashing`.

Leave the last fraction: the end of each user's history, in time, is held out.

Source: Meng et al. 2020, "Exploring data splitting strategies for the evaluation of recommendation
models" (there: temporal user split).
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.errors import require
from fedrec_flower.data.interactions import Interactions, Split
from fedrec_flower.data.splits.base import (
    Negatives,
    Ties,
    check_fractions,
    cut,
    least_history,
    num_held_out,
    num_later,
    order_in_time,
    require_histories,
)


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """Hold out the last interaction of every user, and the one before.

    Attributes:
        num_validation: interactions before the last that are held out for validation: 1, or 0.
        ties: what orders interactions at the same time: "hash" or "file_order" (the later row of
            the interactions is the later one).
        negatives: the pool of training negatives; "legacy" is leaky.
    """

    num_validation: int
    ties: Ties
    negatives: Negatives

    def __post_init__(self) -> None:
        require(
            self.num_validation in (0, 1),
            f"split.num_validation={self.num_validation} is impossible: choose 1, or 0 for none",
        )

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction; `seed` is unused, nothing is drawn.

        Raises:
            DataError: if there are no timestamps, or a user has too few interactions to train on
                one.
        """
        del seed
        order = order_in_time(interactions, self.ties)
        require_histories(interactions, 2 + self.num_validation)
        later = num_later(interactions.user, order)
        return cut(later, num_validation=self.num_validation, num_test=1)


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
