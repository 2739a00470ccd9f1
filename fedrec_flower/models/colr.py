"""CoLR: matrix factorisation whose item vectors change in a few random directions per round.

Item vectors are Q + L R: L has `rank` numbers per item, R has `rank` rows as long as a vector.
Each round the server draws one of the two factors at random, the same for all clients. Clients
train the other factor from zero; the server adds their mean product to Q and draws again. The sum
of the clients' updates is therefore sufficient, as secure aggregation provides it.

`learns=items` is the paper's form: R is random, a client sends `rank` numbers per touched item.
`learns=directions` is the reverse: L is random, a client sends R, `rank` vectors for a catalogue
of any size. Each of these vectors moves all items at once, so many more rounds are needed.

Shared: Q and the random factor, which clients receive and never send; the trained factor, item
biases, the global bias. Personal: user vectors, user biases. Both factors are sent down in full,
although a seed and zeros would be enough: `bytes_down` counts them.

Coordinates of the trained factor change their meaning in every round, so a server optimiser must
not accumulate a direction: no momentum, no control variates, and only the second moment of Adam,
as in `strategy=fedrmsprop`.

Source: Nguyen et al. 2024, "Towards efficient communication and secure federated recommendation
system via low-rank training", and its public code for the scale of the random factor.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, Tensors
from fedrec_flower.models.abilities import ServerPostprocess
from fedrec_flower.models.layers import Frozen, Initialized, ItemEmbedding, Zeros
from fedrec_flower.models.mf import MF

_VECTORS = "item_embedding.weight"
_ITEM_FACTORS = "item_factors.weight"
_DIRECTIONS = "directions"


class CoLR(MF, ServerPostprocess):
    """Score = biases + user vector . (Q[item] + L[item] R).

    Args:
        num_users: rows of the user tables; see `MF`, as for the next five.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" or "ranking".
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial vectors.
        rank: rank of a round's change; at most `embedding_dim`, and at most the number of items
            if the item factors are random.
        learns: "items" trains L for random R, "directions" trains R for random L.

    Raises:
        ConfigError: if the rank or the settings of vectors are impossible.
    """

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
        trains_items = learns == "items"
        max_rank = embedding_dim if trains_items else min(embedding_dim, num_items)
        require(
            1 <= rank <= max_rank, f"model.rank={rank} is impossible: choose from 1 to {max_rank}"
        )
        self.item_factors = ItemEmbedding(num_items, rank, init=Zeros())
        self.directions = nn.Parameter(torch.zeros(rank, embedding_dim))
        Frozen(self.item_embedding)
        if trains_items:
            self._trained, self._random = _ITEM_FACTORS, _DIRECTIONS
            Frozen(Initialized(self.directions, _orthonormal))
        else:
            self._trained, self._random = _DIRECTIONS, _ITEM_FACTORS
            Frozen(Initialized(self.item_factors, _orthonormal))

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        vectors = self.item_embedding(items) + self.item_factors(items) @ self.directions
        match: Tensor = (self.user_embedding(users) * vectors).sum(-1)
        return self._add_biases(match + self.item_bias(items).squeeze(-1), users)

    @override
    def score_all(self, users: Tensor) -> Tensor:
        vectors = self.item_embedding.weight + self.item_factors.weight @ self.directions
        match = self.user_embedding(users) @ vectors.T + self.item_bias.weight.squeeze(-1)
        return self._add_biases(match.T, users).T

    @override
    def bilinear_form(self) -> None:
        # Item vectors are sums of two terms, which the compiled loop does not support.
        return

    @override
    def after_server_step(self, shared: Tensors, rng: np.random.Generator) -> Tensors:
        """Add the round's product L R to Q, and draw a new random factor."""
        if not shared:
            return shared  # local training only: each client continues with its own factors
        trained, random = shared[self._trained], shared[self._random]
        drawn = _orthonormal(random.shape[-2:], rng)
        return shared | {
            _VECTORS: shared[_VECTORS] + shared[_ITEM_FACTORS] @ shared[_DIRECTIONS],
            self._trained: np.zeros_like(trained),
            self._random: np.broadcast_to(drawn, random.shape).copy(),
        }


def _orthonormal(shape: tuple[int, ...], rng: np.random.Generator) -> Float32Array:
    """Draw float32 (n, m), orthogonal along the shorter side, with mean square entry 1 / rank.

    The rank is the shorter side. With this scale, a gradient step on the other factor changes the
    product on average as a step of the same rate on the vectors themselves would.
    """
    rank, length = sorted(shape)
    base: Float64Array = np.linalg.qr(rng.normal(size=(length, rank)))[0]
    base *= np.sqrt(length / rank)
    return (base if shape[0] == length else base.T).astype(np.float32)
