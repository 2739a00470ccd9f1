"""iALS: implicit matrix factorisation by alternating least squares.

Shared: item vectors. Personal: user vectors, which are not stored: a client solves its users'
vectors from their histories when it needs them. With m items and d dimensions a client receives
4 m d bytes per round and sends about 2 m (d + 1)(d + 2): 0.3 and 8.3 MB for 1,682 items and 48
dimensions. The server solves m systems of d equations.

If only one user of a sum had an item, the sum reveals that user's vector. Sums over few users hide
little; secure aggregation extends the sums to all users.

Source: Hu, Koren and Volinsky 2008; weighting and regularization as in Rendle et al. 2022,
"Revisiting the performance of iALS on item recommendation benchmarks".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import (
    NO_NOISE,
    ClosedFormRecommender,
    Incidence,
    Noise,
    incidence,
)
from fedrec_flower.models.layers import Initialized, Normal, PerItem

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MAX_CELLS_PER_BLOCK = 4_000_000  # 32 MB of float64


class IALS(ClosedFormRecommender):
    """Score = user vector . item vector.

    With S the interactions, U users and I items, the vectors minimise
    sum over S of (score - 1)^2 + unobserved_weight * sum over all pairs of score^2
    + regularization * sum over users of (|S of u| + unobserved_weight |I|)^exponent |vector|^2
    and likewise over items. A round first solves the users (on the clients), then the items.

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.
        embedding_dim: length of a vector.
        unobserved_weight: weight of score^2 for every pair, observed or not (alpha_0); above 0.
        regularization: L2 penalty on the vectors (lambda); above 0.
        frequency_exponent: how the penalty grows with the interactions of a user or an item (nu);
            0: it does not, 1: in proportion.
        init_std: standard deviation of the initial vectors, times sqrt(embedding_dim), so that
            their length does not grow with the dimension.
    """

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
        vectors = nn.Parameter(torch.zeros(num_items, embedding_dim))
        std = float(init_std / np.sqrt(embedding_dim))
        self.item_vectors = PerItem(Initialized(vectors, Normal(std)))
        self.embedding_dim = embedding_dim
        self.unobserved_weight = unobserved_weight
        self.regularization = regularization
        self.frequency_exponent = frequency_exponent

    @override
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """The parts of the items' normal equations.

        Returns:
            `outer_products` (num_items, d (d + 1) / 2): outer products of the vectors of an item's
            users, lower triangles, summed; `vectors` (num_items, d): these vectors, summed;
            `num_users_of_item` (num_items,); `gram` (d, d): outer products of all users' vectors,
            summed; `num_users` (1,).
        """
        del share  # the model has no bound
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

    @override
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """One ridge regression per item; an item without users has a zero vector."""
        del parameters, noise
        count = sums["num_users_of_item"]
        vectors = np.zeros(sums["vectors"].shape)
        for items in _blocks(np.flatnonzero(count), self.embedding_dim):
            vectors[items] = self._ridge(
                _unpacked(sums["outer_products"][items], self.embedding_dim),
                sums["vectors"][items],
                count[items],
                gram=sums["gram"],
                num_others=float(sums["num_users"][0]),
            )
        return {"item_vectors": vectors.astype(np.float32)}

    @override
    def score_histories(self, users: IndexArray) -> Float32Array:
        items = self.value("item_vectors")
        scores = self._user_vectors(self._history[users], items) @ items.T
        return scores.astype(np.float32)

    def _user_vectors(self, seen: Incidence, item_vectors: Float32Array) -> Float64Array:
        """float64 (num_users, d): one ridge regression per user, on the user's history."""
        items = item_vectors.astype(np.float64)
        gram = items.T @ items
        vectors = np.zeros((seen.shape[0], self.embedding_dim))
        for users in _blocks(np.arange(len(vectors)), self.embedding_dim):
            block = seen[users]
            vectors[users] = self._ridge(
                _outer_products(block, items),
                block @ items,
                np.diff(block.indptr).astype(np.float64),
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
        """Solve the normal equations of n users given the items, or of n items given the users.

        Args:
            outer: (n, d, d), summed outer products of the vectors that each one interacted with;
                overwritten with the left sides.
            target: (n, d), sums of these vectors: the right sides.
            count: (n,), number of these vectors.
            gram: (d, d), summed outer products of all vectors of the other kind.
            num_others: number of vectors of the other kind.

        Returns:
            float64 (n, d).
        """
        expected = count + self.unobserved_weight * num_others
        penalty: Float64Array = self.regularization * expected**self.frequency_exponent
        diagonal = np.arange(len(gram))
        outer += self.unobserved_weight * gram
        outer[:, diagonal, diagonal] += penalty[:, None]
        solution: NDArray[Any] = np.linalg.solve(outer, target[..., None])[..., 0]
        return solution


def _outer_products(interactions: Incidence, vectors: Float64Array) -> Float64Array:
    """Per row of a sparse matrix, the summed outer products of its columns' vectors.

    Args:
        interactions: sparse (n, k).
        vectors: (k, d).

    Returns:
        float64 (n, d, d).
    """
    outer = np.zeros((interactions.shape[0], vectors.shape[1], vectors.shape[1]))
    offsets, columns = interactions.indptr, interactions.indices
    for row in np.flatnonzero(np.diff(offsets)):
        row_vectors = vectors[columns[offsets[row] : offsets[row + 1]]]
        outer[row] = row_vectors.T @ row_vectors
    return outer


def _packed(outer: Float64Array) -> Float64Array:
    """The lower triangles (n, d (d + 1) / 2) of symmetric matrices (n, d, d), row after row."""
    row, column = np.tril_indices(outer.shape[1])
    packed: Float64Array = outer[:, row, column]
    return packed


def _unpacked(packed: Float64Array, dim: int) -> Float64Array:
    """The inverse of `_packed`: (n, dim, dim)."""
    row, column = np.tril_indices(dim)
    outer = np.empty((len(packed), dim, dim))
    outer[:, row, column] = packed
    outer[:, column, row] = packed
    return outer


def _blocks(rows: IndexArray, dim: int) -> Iterator[IndexArray]:
    """Cut rows into blocks whose (dim, dim) matrices fit in memory together."""
    size = max(_MAX_CELLS_PER_BLOCK // dim**2, 1)
    return (rows[start : start + size] for start in range(0, len(rows), size))
