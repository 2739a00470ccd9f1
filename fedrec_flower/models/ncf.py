"""Neural collaborative filtering: GMF, MLP and NeuMF.

Shared: item vectors, item bias, hidden and output layers. Personal: user vectors.

Source: He et al. 2017, eqs. 9-12; federated with personal user vectors as in FedNCF
(Perifanis and Efraimidis 2022).
"""

from itertools import pairwise
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.abilities import Bilinear, BilinearForm
from fedrec_flower.models.base import MAX_PAIRS_PER_BATCH, Recommender, check_vectors, middle
from fedrec_flower.models.layers import (
    Constant,
    Init,
    Initialized,
    ItemEmbedding,
    Normal,
    UserEmbedding,
    XavierUniform,
    Zeros,
)


class NCF(Recommender, Bilinear):
    """Score = output layer over [user vector * item vector, hidden layers of both], plus bias.

    Args:
        num_users: rows of the user tables.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the output bias in the middle of the rating range.
        variant: "gmf" uses the product only, "mlp" the hidden layers only, "neumf" both.
        embedding_dim: length of a vector; product and hidden layers have separate vectors.
        hidden_dims: widths of the hidden layers, for "mlp" and "neumf".
        init_std: standard deviation of the initial vectors.
    """

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
        has_layers = bool(hidden_dims) and min(hidden_dims) >= 1
        require(
            variant == "gmf" or has_layers,
            f"model.hidden_dims needs layers of one or more units: {hidden_dims}",
        )
        super().__init__()
        self.has_product = variant != "mlp"
        self.has_hidden = variant != "gmf"
        self.embedding_dim = embedding_dim
        # Length of the part of a vector, and of the features, that the product takes.
        self._product_dim = embedding_dim if self.has_product else 0
        table_dim = self._product_dim + (embedding_dim if self.has_hidden else 0)
        self.item_embedding = ItemEmbedding(num_items, table_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.user_embedding = UserEmbedding(num_users, table_dim, init=Normal(init_std))
        self.hidden = nn.Sequential()
        num_features = self._product_dim
        if self.has_hidden:
            for fan_in, fan_out in pairwise([2 * embedding_dim, *hidden_dims]):
                self.hidden.extend([nn.Linear(fan_in, fan_out), nn.ReLU()])
            num_features += hidden_dims[-1]
        self.output = Initialized(
            nn.Linear(num_features, 1),
            weight=_output_weights(self._product_dim),
            bias=Constant(middle(rating_range) if task == "rating" else 0.0),
        )

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        # Split instead of slice: the gradient of a slice is a whole table of zeros.
        user = self.user_embedding(users).split(self.embedding_dim, -1)
        item = self.item_embedding(items).split(self.embedding_dim, -1)
        features = []
        if self.has_product:
            features.append(user[0] * item[0])
        if self.has_hidden:
            features.append(self.hidden(torch.cat([user[-1], item[-1]], -1)))
        scores: Tensor = self.output(torch.cat(features, -1)) + self.item_bias(items)
        return scores.squeeze(-1)

    @override
    def score_all(self, users: Tensor) -> Tensor:
        user, item = self.user_embedding(users), self.item_embedding.weight
        scores = self.item_bias.weight.squeeze(-1) + self.output.bias
        weight, width = self.output.weight[0], self._product_dim
        if self.has_product:
            scores = scores + (user[:, :width] * weight[:width]) @ item[:, :width].T
        if not self.has_hidden:
            return scores
        # The first layer is linear in user and item: each part is computed once, not per pair.
        first, rest = cast("nn.Linear", self.hidden[0]), self.hidden[1:]
        user_part = user[:, -self.embedding_dim :] @ first.weight[:, : self.embedding_dim].T
        item_part = item[:, -self.embedding_dim :] @ first.weight[:, self.embedding_dim :].T
        size = max(MAX_PAIRS_PER_BATCH // len(item), 1)
        hidden = []
        for start in range(0, len(user), size):
            layer = rest(user_part[start : start + size, None] + item_part + first.bias)
            hidden.append(layer @ weight[width:])
        return scores + torch.cat(hidden)

    @override
    def bilinear_form(self) -> BilinearForm | None:
        if self.has_hidden:
            return None
        return BilinearForm(
            user="user_embedding.weight",
            item="item_embedding.weight",
            item_bias="item_bias.weight",
            global_bias="output.bias",
            weight="output.weight",
        )


def _output_weights(product_dim: int) -> Init:
    """Xavier weights (1, n); the first `product_dim` weights, those of the product, are one.

    GMF starts as a plain inner product: He et al. 2017, section 3.3.
    """

    def draw(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
        weight = XavierUniform()(shape, rng)
        weight[:, :product_dim] = 1.0
        return weight

    return draw
