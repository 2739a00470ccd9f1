"""Neural collaborative filtering: GMF, MLP and NeuMF.

Shared: item vectors, item bias, hidden and output layers. Personal: user vectors.

Source: He et al. 2017, eqs. 9-12; federated with personal user vectors as in FedNCF
(Perifanis and Efraimidis 2022).
"""

from itertools import pairwise
from typing import ClassVar, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import (
    PAIRS_AT_ONCE,
    BilinearForm,
    Recommender,
    check_vectors,
    middle,
    normal,
    xavier_uniform,
)


class NCF(Recommender):
    """Score = output layer over [user vector * item vector, hidden layers of both], plus bias.

    Args:
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the output bias in the middle of the rating range.
        variant: "gmf" keeps the product alone, "mlp" the hidden layers alone, "neumf" both.
        embedding_dim: length of a vector; product and hidden layers have vectors of their own.
        hidden_dims: widths of the hidden layers, for "mlp" and "neumf".
        init_std: standard deviation of the initial vectors.
    """

    user_rows: ClassVar[frozenset[str]] = frozenset({"user_embedding.weight"})
    item_rows: ClassVar[frozenset[str]] = frozenset({"item_embedding.weight", "item_bias.weight"})

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        variant: Literal["gmf", "mlp", "neumf"],
        embedding_dim: int,
        hidden_dims: list[int],
        init_std: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        deep = variant == "gmf" or bool(hidden_dims and min(hidden_dims) >= 1)
        require(deep, f"model.hidden_dims needs layers of one or more units: {hidden_dims}")
        super().__init__()
        self.has_product = variant != "mlp"
        self.has_hidden = variant != "gmf"
        self.embedding_dim = embedding_dim
        width = embedding_dim * (self.has_product + self.has_hidden)
        self.item_embedding = nn.Embedding(num_items, width)
        self.item_bias = nn.Embedding(num_items, 1)
        self.user_embedding = nn.Embedding(num_users, width)
        widths = [2 * embedding_dim, *hidden_dims] if self.has_hidden else []
        self.hidden = nn.Sequential()
        for fan_in, fan_out in pairwise(widths):
            self.hidden.extend([nn.Linear(fan_in, fan_out), nn.ReLU()])
        features = embedding_dim * self.has_product + (widths[-1] if widths else 0)
        self.output = nn.Linear(features, 1)
        self.start = middle(rating_range) if task == "rating" else 0.0
        self.init_std = init_std

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`."""
        # Split, not sliced: the gradient of a slice is a whole table of zeros.
        user = self.user_embedding(users).split(self.embedding_dim, -1)
        item = self.item_embedding(items).split(self.embedding_dim, -1)
        features = []
        if self.has_product:
            features.append(user[0] * item[0])
        if self.has_hidden:
            features.append(self.hidden(torch.cat([user[-1], item[-1]], -1)))
        scores: Tensor = self.output(torch.cat(features, -1)) + self.item_bias(items)
        return scores.squeeze(-1)

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`; what user and item add to the first layer is shared."""
        user, item = self.user_embedding(users), self.item_embedding.weight
        scores = self.item_bias.weight.squeeze(-1) + self.output.bias
        weight, width = self.output.weight[0], self.embedding_dim * self.has_product
        if self.has_product:
            scores = scores + (user[:, :width] * weight[:width]) @ item[:, :width].T
        if not self.has_hidden:
            return scores
        first, rest = cast("nn.Linear", self.hidden[0]), self.hidden[1:]
        of_user = user[:, -self.embedding_dim :] @ first.weight[:, : self.embedding_dim].T
        of_item = item[:, -self.embedding_dim :] @ first.weight[:, self.embedding_dim :].T
        size = max(PAIRS_AT_ONCE // len(item), 1)
        hidden = []
        for start in range(0, len(user), size):
            layer = rest(of_user[start : start + size, None] + of_item + first.bias)
            hidden.append(layer @ weight[width:])
        return scores + torch.cat(hidden)

    def factors(self) -> BilinearForm | None:
        """See `Recommender.factors`: without hidden layers this is a weighted product."""
        if self.has_hidden:
            return None
        return BilinearForm(
            user="user_embedding.weight",
            item="item_embedding.weight",
            item_bias="item_bias.weight",
            global_bias="output.bias",
            weight="output.weight",
        )

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal vectors, Xavier weights, zero biases; the product's weights start at one."""
        if name.endswith("embedding.weight"):
            return normal(shape, self.init_std, rng)
        if name == "output.bias":
            return np.full(shape, self.start, np.float32)
        if name.endswith("bias") or name == "item_bias.weight":
            return np.zeros(shape, np.float32)
        weight = xavier_uniform(shape, rng)
        if name == "output.weight" and self.has_product:
            # GMF begins as a plain inner product: He et al. 2017, section 3.3.
            weight[:, : self.embedding_dim] = 1.0
        return weight
