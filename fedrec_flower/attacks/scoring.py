"""A model as attackers of its item rows see it: scores are products of two kinds of rows.

An *item row* is an item's vector and then its bias. A *face* is what a user shows to item rows:
its vector, times the model's weights, and then 1. A score is face . row; what else a model adds
moves no item past another. So the gradient of a score by an item row is the face.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Tensors
from fedrec_flower.errors import ConfigError
from fedrec_flower.models.base import Factors, Recommender

Rows = NDArray[np.float32]
Own = Callable[[str, int], Rows]  # a table's name, a client -> the rows of its users


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a model scores.

    Attributes:
        factors: the names of what makes up a score.
    """

    factors: Factors

    @classmethod
    def of(cls, model: Recommender) -> Self:
        """How a model scores.

        Raises:
            ConfigError: if not by products with item vectors that clients send.
        """
        factors = model.factors()
        if factors is None or factors.item not in {*model.shared_names()} - model.frozen:
            raise ConfigError(
                f"this attack changes item vectors that users' vectors are multiplied with, and "
                f"{type(model).__name__} shares none: choose model=mf, or fake profiles "
                "(attack=random, bandwagon or popular)"
            )
        return cls(factors)

    def rows(self, given: Tensors) -> Rows:
        """float32 (num_items, d + 1): the item rows of shared parameters."""
        vectors = given[self.factors.item]
        bias = given.get(self.factors.item_bias, np.zeros((len(vectors), 1), np.float32))
        return np.concatenate([vectors, bias], axis=1)

    def faces(self, client: int, given: Tensors, own: Own) -> Rows:
        """float32 (num_users, d + 1): what the users of a client show to item rows."""
        vectors = own(self.factors.user, client)
        if self.factors.weight:
            vectors = vectors * given[self.factors.weight]
        return faced(vectors)

    def changes(self, rows: Rows) -> Tensors:
        """Changes of item rows, (n, d + 1), as changes of parameters, (n, ...) each."""
        parts = {self.factors.item: rows[:, :-1], self.factors.item_bias: rows[:, -1:]}
        return {name: change for name, change in parts.items() if name}


def faced(vectors: Rows) -> Rows:
    """Vectors of users, (n, d), with the 1 that meets the bias, (n, d + 1)."""
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)
