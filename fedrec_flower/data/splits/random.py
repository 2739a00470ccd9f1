"""A random split, of each user's interactions or of all of them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Interactions, Split
from fedrec_flower.data.splits.base import (
    Negatives,
    check_fractions,
    cut,
    least_history,
    num_held_out,
    num_later,
    order_at_random,
    require_histories,
    require_length,
)


@dataclass(frozen=True, slots=True)
class Random:
    """Hold out interactions at random.

    Attributes:
        scope: "user": fractions of each user's interactions, so that every user has a test part;
            "global": fractions of all interactions, the usual split for ratings.
        validation_fraction: of the whole scope, rounded down, at least one interaction; 0 for no
            validation part.
        test_fraction: of the whole scope, rounded down, at least one interaction.
        negatives: the pool of training negatives; "legacy" is leaky.

    Raises:
        ConfigError: if the fractions are impossible.
    """

    scope: Literal["user", "global"]
    validation_fraction: float
    test_fraction: float
    negatives: Negatives

    def __post_init__(self) -> None:
        check_fractions(self.validation_fraction, self.test_fraction)

    def split(self, interactions: Interactions, seed: int) -> Split:
        """Label each interaction. The same seed gives the same labels in any file order.

        Raises:
            DataError: if a user (or, with scope "global", the dataset) has too few interactions.
        """
        group = self._groups(interactions)
        order = order_at_random(interactions, group, generator(seed, "split"))
        lengths = np.bincount(group)[group]
        return cut(
            num_later(group, order),
            num_validation=num_held_out(lengths, self.validation_fraction),
            num_test=num_held_out(lengths, self.test_fraction),
        )

    def _groups(self, interactions: Interactions) -> NDArray[np.int32]:
        """Return the group of each interaction: its user, or one group for all."""
        needed = least_history(self.validation_fraction, self.test_fraction)
        if self.scope == "user":
            require_histories(interactions, needed)
            return interactions.user
        require_length(interactions, needed)
        return np.zeros_like(interactions.user)
