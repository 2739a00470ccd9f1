"""Matrix factorisation with biases.

Shared: item vectors, item biases, the global bias. Personal: user vectors, user biases.

Source: Koren, Bell and Volinsky 2009, eq. 5; federated with personal user vectors as in
Chai et al. 2021, section 3.
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import BilinearForm, Recommender, check_vectors, middle, normal


class MF(Recommender):
    """Score = global bias + user bias + item bias + user vector . item vector.

    Args:
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the global bias in the middle of the rating range; "ranking" has
            neither global nor user bias, because they move no item past another.
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial vectors.
    """

    user_rows: ClassVar[frozenset[str]] = frozenset({"user_embedding.weight", "user_bias.weight"})
    item_rows: ClassVar[frozenset[str]] = frozenset({"item_embedding.weight", "item_bias.weight"})

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        super().__init__()
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.item_bias = nn.Embedding(num_items, 1)
        self.user_embedding = nn.Embedding(num_users, embedding_dim)
        self.rates = task == "rating"
        if self.rates:
            self.user_bias = nn.Embedding(num_users, 1)
            self.global_bias = nn.Parameter(torch.zeros(1))
        self.start = middle(rating_range)
        self.init_std = init_std

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`."""
        match: Tensor = (self.user_embedding(users) * self.item_embedding(items)).sum(-1)
        return self._add_biases(match + self.item_bias(items).squeeze(-1), users)

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`; one matrix product."""
        match = self.user_embedding(users) @ self.item_embedding.weight.T
        match = match + self.item_bias.weight.squeeze(-1)
        return self._add_biases(match.T, users).T

    def _add_biases(self, scores: Tensor, users: Tensor) -> Tensor:
        if not self.rates:
            return scores
        user_bias: Tensor = self.user_bias(users).squeeze(-1)
        return scores + user_bias + self.global_bias

    def factors(self) -> BilinearForm | None:
        """See `Recommender.factors`."""
        names = BilinearForm("user_embedding.weight", "item_embedding.weight", "item_bias.weight")
        if not self.rates:
            return names
        return replace(names, user_bias="user_bias.weight", global_bias="global_bias")

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal vectors, zero biases, the global bias in the middle of the rating range."""
        if name.endswith("embedding.weight"):
            return normal(shape, self.init_std, rng)
        return np.full(shape, self.start if name == "global_bias" else 0.0, np.float32)
