"""iALS: implicit matrix factorisation by alternating least squares.

Shared: item vectors. Personal: user vectors, which nobody keeps: a client solves its users' from
their histories whenever it needs them. With m items and d dimensions a client receives 4 m d
bytes a round and sends 2 m (d + 1)(d + 2) and a little: 0.3 and 8.3 MB for 1,682 items and 48
dimensions. The server solves m systems of d equations.

Mind that an item whom a single user of a sum had shows that user's vector in it: sums over few
users hide little, until secure aggregation makes them sums over all.

Source: Hu, Koren and Volinsky 2008; weighting and regularization as in Rendle et al. 2022,
"Revisiting the performance of iALS on item recommendation benchmarks".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.base import normal
from fedrec_flower.models.closed_form import (
    NO_NOISE,
    ClosedFormRecommender,
    Histories,
    Noise,
    incidence,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64, whatever the dimension


class IALS(ClosedFormRecommender):
    """Score = user vector . item vector.

    With S the interactions, U users and I items, the vectors minimise
    sum over S of (score - 1)^2 + unobserved_weight * sum over all pairs of score^2
    + regularization * sum over users of (|S of u| + unobserved_weight |I|)^exponent |vector|^2
    and likewise over items. A round solves first the users (on the clients), then the items.

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
        embedding_dim: length of a vector.
        unobserved_weight: weight of score^2 for every pair, had or not (alpha_0); above 0.
        regularization: L2 pull on the vectors (lambda); above 0.
        frequency_exponent: how the pull grows with a user's or an item's interactions (nu);
            0: not at all, 1: in proportion.
        init_std: standard deviation of the initial vectors, times sqrt(embedding_dim).
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"item_vectors"})
    statistic_names: ClassVar[tuple[str, ...]] = (
        "outer_products", "vectors", "num_users_of_item", "gram", "num_users",
    )  # fmt: skip

    def __init__(
        self,
        num_users: int,
        num_items: int,
        embedding_dim: int,
        unobserved_weight: float,
        regularization: float,
        frequency_exponent: float,
        init_std: float,
    ) -> None:
        require(embedding_dim >= 1, f"model.embedding_dim must be at least 1: {embedding_dim}")
        for name, value in (
            ("unobserved_weight", unobserved_weight),
            ("regularization", regularization),
            ("init_std", init_std),
        ):
            require(value > 0, f"model.{name} must be above 0: {value}")
        super().__init__(num_users, num_items)
        self.item_vectors = nn.Parameter(torch.zeros(num_items, embedding_dim))
        self.embedding_dim, self.init_std = embedding_dim, init_std
        self.unobserved_weight, self.regularization = unobserved_weight, regularization
        self.frequency_exponent = frequency_exponent

    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """See `ClosedFormRecommender.statistics`; what the items' normal equations are made of.

        Returns:
            `outer_products` (num_items, d (d + 1) / 2): of the vectors of an item's users,
            lower triangles, summed; `vectors` (num_items, d): these vectors summed;
            `num_users_of_item` (num_items,); `gram` (d, d): the outer products of all users'
            vectors summed; `num_users` (1,).
        """
        del share  # no bound is known
        seen = incidence(history, self.num_items)
        users = self._user_vectors(seen, parameters["item_vectors"])
        users_of = seen.T.tocsr()
        count = np.diff(users_of.indptr)
        outer = np.zeros((self.num_items, self.embedding_dim * (self.embedding_dim + 1) // 2))
        for items in _blocks(np.flatnonzero(count), self.embedding_dim):
            outer[items] = _packed(_outer_products(users_of[items], users))
        return {
            "outer_products": outer,
            "vectors": users_of @ users,
            "num_users_of_item": count.astype(np.float64),
            "gram": users.T @ users,
            "num_users": np.array([float(len(users))]),
        }

    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """See `ClosedFormRecommender.solve`; one ridge regression per item."""
        del parameters, noise
        count, vectors = sums["num_users_of_item"], np.zeros(sums["vectors"].shape)
        # The vector of an item that nobody had is zero.
        for items in _blocks(np.flatnonzero(count), self.embedding_dim):
            vectors[items] = self._ridge(
                _unpacked(sums["outer_products"][items], self.embedding_dim),
                sums["vectors"][items],
                count[items],
                gram=sums["gram"],
                num_others=float(sums["num_users"][0]),
            )
        return {"item_vectors": vectors.astype(np.float32)}

    def score_histories(self, users: IndexArray) -> Float32Array:
        """See `ClosedFormRecommender.score_histories`."""
        items = self.value("item_vectors")
        scores = self._user_vectors(self._seen[users], items) @ items.T
        return scores.astype(np.float32)

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal vectors whose length does not grow with their dimension."""
        del name
        return normal(shape, self.init_std / np.sqrt(shape[1]), rng)

    def _user_vectors(self, seen: Histories, item_vectors: Float32Array) -> Float64Array:
        """float64 (num_users, d): one ridge regression per user, on its own history."""
        items = item_vectors.astype(np.float64)
        gram, vectors = items.T @ items, np.zeros((seen.shape[0], self.embedding_dim))
        for users in _blocks(np.arange(len(vectors)), self.embedding_dim):
            some = seen[users]
            vectors[users] = self._ridge(
                _outer_products(some, items),
                some @ items,
                np.diff(some.indptr).astype(np.float64),
                gram=gram,
                num_others=self.num_items,
            )
        return vectors

    def _ridge(
        self,
        outer: Float64Array,
        target: Float64Array,
        count: Float64Array,
        *,
        gram: Float64Array,
        num_others: float,
    ) -> Float64Array:
        """Solve the normal equations of several users against the items, or the reverse.

        Args:
            outer: (n, d, d), outer products of the vectors of what each has met, summed; becomes
                the left side.
            target: (n, d), these vectors, summed: the right side.
            count: (n,), how many each has met.
            gram: (d, d), outer products of all others, summed.
            num_others: how many others there are.

        Returns:
            float64 (n, d).
        """
        expected = count + self.unobserved_weight * num_others
        pull: Float64Array = self.regularization * expected**self.frequency_exponent
        diagonal = np.arange(len(gram))
        outer += self.unobserved_weight * gram
        outer[:, diagonal, diagonal] += pull[:, None]
        solved: NDArray[Any] = np.linalg.solve(outer, target[..., None])[..., 0]
        return solved


def _outer_products(met: Histories, vectors: Float64Array) -> Float64Array:
    """Per row of a sparse matrix, the outer products of its columns' vectors, summed.

    Args:
        met: sparse (n, k), who met whom.
        vectors: (k, d).

    Returns:
        float64 (n, d, d).
    """
    outer = np.zeros((met.shape[0], vectors.shape[1], vectors.shape[1]))
    for row in np.flatnonzero(np.diff(met.indptr)):
        own = vectors[met.indices[met.indptr[row] : met.indptr[row + 1]]]
        outer[row] = own.T @ own
    return outer


def _packed(outer: Float64Array) -> Float64Array:
    """The lower triangles (n, d (d + 1) / 2) of symmetric matrices (n, d, d), row after row."""
    row, column = np.tril_indices(outer.shape[1])
    packed: Float64Array = outer[:, row, column]
    return packed


def _unpacked(packed: Float64Array, dim: int) -> Float64Array:
    """What `_packed` packed: (n, dim, dim)."""
    row, column = np.tril_indices(dim)
    outer = np.empty((len(packed), dim, dim))
    outer[:, row, column] = packed
    outer[:, column, row] = packed
    return outer


def _blocks(rows: IndexArray, dim: int) -> Iterator[IndexArray]:
    """Cut rows into pieces whose (dim, dim) matrices fit in memory together."""
    size = max(_CELLS_AT_ONCE // dim**2, 1)
    return (rows[start : start + size] for start in range(0, len(rows), size))
