"""Splits that hold out the end of each user's history.

Leave-one-out: the last interaction is test, the one before is validation. With `num_validation=0`
the model is trained on all interactions but the last, as before a deployment: the settings were
selected earlier, and the last round is tested. 415 of the 943 users of MovieLens-100K have ties at
their last timestamp; ties are broken by a fixed hash (`data.tie_breaking`).
Source: He et al. 2017, "Neural collaborative filtering", section 4.1.

Leave-last-fraction: the last fractions of each history are held out.
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
    """Hold out the last interaction of every user for test, and the one before for validation.

    Attributes:
        num_validation: number of interactions held out for validation: 1, or 0.
        ties: order of interactions at equal times: "hash" or "file_order" (the later row is the
            later interaction).
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
        """Label each interaction. `seed` is unused: no random draw.

        Raises:
            DataError: if there are no timestamps, or a user has too few interactions.
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
        ties: order of interactions at equal times: "hash" or "file_order" (the later row is the
            later interaction).
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
        """Label each interaction. `seed` is unused: no random draw.

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
