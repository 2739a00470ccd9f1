"""Two towers whose items are also known by name: content for all, and what was learnt of each.

Genres and years do not say how popular a film is, so `two_tower` falls behind for users it never
met, where popularity is the best guess. Here each item adds a vector and bias of its own to what
its features say. A user is still no more than attributes and a profile, so users who never trained
are scored like all others; an item that nobody had in training is not, since its own vector has
only ever been a negative.

Shared: the towers, the items' own vectors. Public and personal: as in `two_tower`.

Source: Kula 2015 (LightFM), section 3, where an item's name is one more of its features; Yi et al.
2019, section 3.
"""

from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import check_vectors, normal
from fedrec_flower.models.two_tower import TwoTower


class Hybrid(TwoTower):
    """Score = that of `TwoTower` + user tower . the item's own vector + the item's own bias.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item table.
        task: "ranking"; see `TwoTower`, as for all that follows but the last.
        item_features: float32 (num_items, num_features).
        num_attributes: how many numbers say what a user is like.
        embedding_dim: length of the vectors that the towers end in.
        hidden_dims: widths of each tower's hidden layers.
        history_dropout: share of the rounds that a user trains in without a history.
        init_std: standard deviation of the items' own initial vectors and biases.
    """

    item_rows: ClassVar[frozenset[str]] = TwoTower.item_rows | {"item_embedding.weight"}

    def __init__(
        self,
        num_users: int,
        num_items: int,
        task: str,
        item_features: Float32Array,
        num_attributes: int,
        embedding_dim: int,
        hidden_dims: list[int],
        history_dropout: float,
        init_std: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        towers = (embedding_dim, hidden_dims, history_dropout)
        super().__init__(num_users, task, item_features, num_attributes, *towers)
        self.item_embedding = nn.Embedding(num_items, embedding_dim + 1)
        self.init_std = init_std

    def item_vectors(self, items: Tensor) -> Tensor:
        """See `TwoTower.item_vectors`."""
        own: Tensor = self.item_embedding(items)
        return super().item_vectors(items) + own

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """As of `TwoTower`; the items' own vectors are normal."""
        if name == "item_embedding.weight":
            return normal(shape, self.init_std, rng)
        return super().initial_value(name, shape, rng)
