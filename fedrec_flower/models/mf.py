"""Matrix factorisation with biases.

Shared: item vectors, item biases, the global bias. Personal: user vectors, user biases.

Source: Koren, Bell and Volinsky 2009, eq. 5; federated with personal user vectors as in
Chai et al. 2021, section 3.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.models.abilities import Bilinear, BilinearForm
from fedrec_flower.models.base import Recommender, check_vectors, middle
from fedrec_flower.models.layers import ItemEmbedding, Normal, UserEmbedding, Zeros


class MF(Recommender, Bilinear):
    """Score = global bias + user bias + item bias + user vector . item vector.

    Args:
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the global bias in the middle of the rating range; "ranking" has
            neither global nor user bias, because they do not change the order of items.
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial vectors.
    """

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
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.user_embedding = UserEmbedding(num_users, embedding_dim, init=Normal(init_std))
        self.predicts_ratings = task == "rating"
        if self.predicts_ratings:
            self.user_bias = UserEmbedding(num_users, 1, init=Zeros())
            self.global_bias = nn.Parameter(torch.full((1,), middle(rating_range)))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        match: Tensor = (self.user_embedding(users) * self.item_embedding(items)).sum(-1)
        return self._add_biases(match + self.item_bias(items).squeeze(-1), users)

    @override
    def score_all(self, users: Tensor) -> Tensor:
        match = self.user_embedding(users) @ self.item_embedding.weight.T
        match = match + self.item_bias.weight.squeeze(-1)
        return self._add_biases(match.T, users).T

    def _add_biases(self, scores: Tensor, users: Tensor) -> Tensor:
        """Scores (..., num_users) with the biases of users and of all ratings."""
        if not self.predicts_ratings:
            return scores
        user_bias: Tensor = self.user_bias(users).squeeze(-1)
        return scores + user_bias + self.global_bias

    @override
    def bilinear_form(self) -> BilinearForm | None:
        form = BilinearForm("user_embedding.weight", "item_embedding.weight", "item_bias.weight")
        if not self.predicts_ratings:
            return form
        return replace(form, user_bias="user_bias.weight", global_bias="global_bias")
