"""FedRAP: each client adds a personal item table to the shared one.

Shared: the common item vectors. Personal: a whole table of item vectors and the score function.
With `score_with=own` the client also stores the common vectors that its last training produced.

Source: Li et al. 2024, "Federated Recommendation with Additive Personalization", eqs. 4-6.
"""

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

from torch import Tensor
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.abilities import Regularized, RoundAware
from fedrec_flower.models.base import check_vectors, middle
from fedrec_flower.models.layers import ItemEmbedding, LocallyAdapted, Normal, Personal
from fedrec_flower.models.personal_head import PersonalHead, personal_head, table_products

_CURRICULUM_ROUNDS = 10.0  # the weights reach tanh(1), three quarters, after this many rounds


class FedRAP(PersonalHead, Regularized, RoundAware):
    """Score = the client's weights . (common + personal item vector) + the client's bias.

    The loss has two more terms: one rewards distance between the common and the personal vector of
    an item, one keeps the common vectors sparse. Both grow from zero as tanh(round / 10).

    Args:
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the bias in the middle of the rating range.
        embedding_dim: length of an item vector.
        init_std: standard deviation of the initial item vectors, common and personal.
        apart: weight of the mean squared distance of common and personal vectors (lambda).
        sparse: weight of the mean absolute value of the common vectors (mu).
        curriculum: "tanh", or "constant" for both full weights from the first round, as in the
            authors' code.
        score_with: "shared" scores with the common vectors that the server just averaged, "own"
            with those that the client's last training produced.
    """

    may_be_negative: ClassVar[bool] = True  # distance is rewarded

    def __init__(
        self,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        apart: float,
        sparse: float,
        curriculum: Literal["tanh", "constant"],
        score_with: Literal["own", "shared"],
    ) -> None:
        check_vectors(embedding_dim, init_std)
        for name, value in (("apart", apart), ("sparse", sparse)):
            require(value >= 0, f"model.{name} must not be negative: {value}")
        super().__init__()
        self.common = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        if score_with == "own":
            LocallyAdapted(self.common)
        self.own = Personal(ItemEmbedding(num_items, embedding_dim, init=Normal(init_std)))
        self.score = personal_head(embedding_dim, middle(rating_range) if task == "rating" else 0.0)
        self.apart = apart
        self.sparse = sparse
        self.curriculum = curriculum
        self.strength = 1.0

    @override
    def vectors(self, items: Tensor | None) -> Tensor:
        if items is None:
            return self.common.weight + self.own.weight
        vectors: Tensor = self.common(items) + self.own(items)
        return vectors

    @override
    def products(
        self, weights: Tensor, parameters: Mapping[str, Tensor], per_client: frozenset[str]
    ) -> Tensor:
        common, own = (
            table_products(weights, parameters[name], per_client=name in per_client)
            for name in ("common.weight", "own.weight")
        )
        return common + own

    @override
    def on_round_start(self, round_: int) -> None:
        if self.curriculum == "tanh":
            self.strength = math.tanh(round_ / _CURRICULUM_ROUNDS)
        else:
            self.strength = 1.0

    @override
    def regularizer(self, users: Tensor, items: Tensor) -> Tensor:
        del users
        common, own = self.common(items), self.own(items)
        distance = (common - own).square().mean(-1)
        added: Tensor = self.sparse * common.abs().mean(-1) - self.apart * distance
        return self.strength * added
