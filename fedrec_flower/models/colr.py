"""CoLR: matrix factorisation whose item vectors move in a few random directions a round.

Item vectors are Q + L R: L has a row of `rank` numbers per item, R has `rank` rows as long as a
vector. Each round one of the two is drawn at random, alike for all, and clients train the other
from zero; the server adds their mean product to Q and draws again. So the sum of what they send is
all it needs, as secure aggregation gives it.

`learns=items` is the paper's: R is random, a client sends `rank` numbers per item it touched.
`learns=directions` is the other way round: L is random, a client sends R, `rank` vectors whatever
the catalogue. Each of them moves all items at once, so it needs many more rounds.

Shared: Q and the random factor, which travel down and never up, the trained factor, item biases,
the global bias. Personal: user vectors, user biases. Both factors travel down as they are, though
a seed and nothing would do: `bytes_down` counts them.

Coordinates of the trained factor mean something else every round, so a server optimiser must not
remember where it went: no momentum, no control variates, and of Adam the second moment alone, as
`strategy=fedrmsprop` has it.

Source: Nguyen et al. 2024, "Towards efficient communication and secure federated recommendation
system via low-rank training", and its public code for the scale of the random factor.
"""

from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, Tensors
from fedrec_flower.models.mf import MF

_VECTORS, _ITEMS, _DIRECTIONS = "item_embedding.weight", "item_factors.weight", "directions"


class CoLR(MF):
    """Score = biases + user vector . (Q[item] + L[item] R).

    Args:
        num_users: rows of the user tables; see `MF`, as for what follows.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" or "ranking".
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial vectors.
        rank: of what a round changes; at most `embedding_dim`, and the number of items where their
            factors are random.
        learns: "items" trains L along random directions R, "directions" R for random L.

    Raises:
        ConfigError: if the rank or the vectors are impossible.
    """

    item_rows: ClassVar[frozenset[str]] = MF.item_rows | {_ITEMS}

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        rank: int,
        learns: Literal["items", "directions"],
    ) -> None:
        super().__init__(num_users, num_items, rating_range, task, embedding_dim, init_std)
        most = embedding_dim if learns == "items" else min(embedding_dim, num_items)
        require(1 <= rank <= most, f"model.rank={rank} is impossible: choose from 1 to {most}")
        self.item_factors = nn.Embedding(num_items, rank)
        self.directions = nn.Parameter(torch.zeros(rank, embedding_dim))
        both = (_ITEMS, _DIRECTIONS)
        self._trained, self._random = both if learns == "items" else both[::-1]
        self.frozen = frozenset({_VECTORS, self._random})

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`."""
        vectors = self.item_embedding(items) + self.item_factors(items) @ self.directions
        match: Tensor = (self.user_embedding(users) * vectors).sum(-1)
        return self._add_biases(match + self.item_bias(items).squeeze(-1), users)

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`; one matrix product."""
        vectors = self.item_embedding.weight + self.item_factors.weight @ self.directions
        match = self.user_embedding(users) @ vectors.T + self.item_bias.weight.squeeze(-1)
        return self._add_biases(match.T, users).T

    def factors(self) -> None:
        """See `Recommender.factors`: the vectors are sums, which the compiled loop knows not."""
        return

    def settle(self, shared: Tensors, rng: np.random.Generator) -> Tensors:
        """See `Recommender.settle`: the round's change becomes part of Q, for every version."""
        if not shared:
            return shared  # nothing travels: every client goes on along its own directions
        trained, random = shared[self._trained], shared[self._random]
        drawn = _orthonormal(random.shape[-2:], rng)
        return shared | {
            _VECTORS: shared[_VECTORS] + shared[_ITEMS] @ shared[_DIRECTIONS],
            self._trained: np.zeros_like(trained),
            self._random: np.broadcast_to(drawn, random.shape).copy(),
        }

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """As of `MF`; the trained factor is zero, the random one orthonormal up to its scale."""
        if name == self._random:
            return _orthonormal(shape, rng)
        return super().initial_value(name, shape, rng)


def _orthonormal(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Draw float32 (n, m): orthogonal along the shorter side, of entries with mean square 1 / rank.

    With this scale, rank being the shorter side, a step of descent on the other factor changes the
    product on average as a step of the same rate on the vectors themselves would.
    """
    rank, length = sorted(shape)
    base: Float64Array = np.linalg.qr(rng.normal(size=(length, rank)))[0]
    base *= np.sqrt(length / rank)
    return (base if shape[0] == length else base.T).astype(np.float32)
