"""FedRAP: every client adds an item table of its own to the shared one.

Shared: the common item vectors. Personal: a whole table of item vectors and the score function;
with `score_with=own` also the common vectors as the client's own last training left them.

Source: Li et al. 2024, "Federated Recommendation with Additive Personalization", eqs. 4-6.
"""

import math
from typing import ClassVar, Literal

from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import check_vectors, middle
from fedrec_flower.models.personal_head import PersonalHead

_PACE = 10.0  # rounds; the curriculum has run three quarters of its way after one of these


class FedRAP(PersonalHead):
    """Score = the client's weights . (common item vector + own item vector) + the client's bias.

    Two terms join the loss: one drives the common and the own vector of an item apart, one keeps
    the common vectors sparse. Both grow from nothing as tanh(round / 10).

    Args:
        num_users: not used: a client's users share its table.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the bias in the middle of the rating range.
        embedding_dim: length of an item vector.
        init_std: standard deviation of the initial item vectors, common and own.
        apart: weight of the mean squared distance of common and own vectors (lambda).
        sparse: weight of the mean absolute value of the common vectors (mu).
        curriculum: "tanh", or "constant" for both weights in full from the first round, as the
            authors' code runs.
        score_with: "shared" scores with the common vectors the server has just averaged, "own"
            with those that the client's last training left behind.
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"common.weight", "own.weight"})
    personal: ClassVar[frozenset[str]] = frozenset({"own.weight", "score.weight", "score.bias"})
    losses_below_zero: ClassVar[bool] = True  # being apart is rewarded

    def __init__(
        self,
        num_users: int,
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
        del num_users
        check_vectors(embedding_dim, init_std)
        for name, value in (("apart", apart), ("sparse", sparse)):
            require(value >= 0, f"model.{name} must not be negative: {value}")
        super().__init__()
        self.common = nn.Embedding(num_items, embedding_dim)
        self.own = nn.Embedding(num_items, embedding_dim)
        self.score = nn.Linear(embedding_dim, 1)
        self.start = middle(rating_range) if task == "rating" else 0.0
        self.init_std, self.apart, self.sparse = init_std, apart, sparse
        self.curriculum, self.strength = curriculum, 1.0
        self.tuned = frozenset({"common.weight"}) if score_with == "own" else frozenset()

    def vectors(self, items: Tensor | None) -> Tensor:
        """See `PersonalHead.vectors`."""
        if items is None:
            return self.common.weight + self.own.weight
        vectors: Tensor = self.common(items) + self.own(items)
        return vectors

    def begin(self, round_: int) -> None:
        """See `Recommender.begin`: the curriculum moves on."""
        self.strength = math.tanh(round_ / _PACE) if self.curriculum == "tanh" else 1.0

    def penalty(self, users: Tensor, items: Tensor) -> Tensor | None:
        """See `Recommender.penalty`."""
        del users
        common, own = self.common(items), self.own(items)
        distance = (common - own).square().mean(-1)
        added: Tensor = self.sparse * common.abs().mean(-1) - self.apart * distance
        return self.strength * added
