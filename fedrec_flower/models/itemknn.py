"""ItemKNN: recommends items that are similar to the user's items.

Shared: each item's nearest neighbours and their similarities. Personal: none. With m items
and k neighbours a client sends 2 m (m + 1) bytes once (for each pair of items, the number of its
users who had both) and receives 8 m k: 5.7 and 1.0 MB for 1,682 items and 75 neighbours. The server
holds a float64 matrix of 8 m ** 2 bytes.

Source: Deshpande and Karypis 2004, with the shrinkage of Bell and Koren 2007; Ferrari Dacrema et
al. 2021, section 3.2, for the combination.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise, incidence
from fedrec_flower.models.layers import PerItem
from fedrec_flower.models.ops.cooccurrence import (
    cooccurrences,
    debiased,
    insignificant,
    norms,
    symmetric,
)

_MAX_CELLS_PER_BLOCK = 4_000_000  # 32 MB of float64


class ItemKNN(ClosedFormRecommender):
    """Score = sum of the similarities to those of the item's neighbours that the user had.

    The similarity of two items is the cosine of their columns of users, shrunk:
    both / (sqrt(one * other) + shrinkage), where `both` users had both items.

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.
        num_neighbours: neighbours that an item keeps, at least 1.
        shrinkage: added to the denominator, in users; lowers similarities with few common users.
            0: cosine.
    """

    statistic_names: ClassVar[tuple[str, ...]] = ("cooccurrences",)
    node_bytes: ClassVar[float] = 18.0  # measured
    server_bytes: ClassVar[float] = 46.0  # measured
    bounded: ClassVar[bool] = True

    def __init__(
        self, num_users: int, num_items: int, num_neighbours: int, shrinkage: float
    ) -> None:
        require(num_neighbours >= 1, f"model.num_neighbours must be at least 1: {num_neighbours}")
        require(shrinkage >= 0, f"model.shrinkage must not be negative: {shrinkage}")
        super().__init__(num_users, num_items)
        # Item codes, exact in float32 below 2**24; unused places have similarity 0.
        self.neighbours = PerItem(nn.Parameter(torch.zeros(num_items, num_neighbours)))
        self.similarities = PerItem(nn.Parameter(torch.zeros(num_items, num_neighbours)))
        self.num_neighbours = num_neighbours
        self.shrinkage = shrinkage

    @override
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        del parameters
        value = None if share is None else np.sqrt(share)
        return {"cooccurrences": cooccurrences(incidence(history, self.num_items, value))}

    @override
    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        return norms(history, user_offsets, self.num_items)

    @override
    def largest_std(self, noise: Noise) -> float:
        """Standard deviation of a pair of items."""
        return float(noise.of_pairs(np.full(2, noise.num_users))[0, 1])

    @override
    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        pairs = debiased(sums["cooccurrences"], self.num_items, flip_rate, num_users)
        return {"cooccurrences": pairs}

    @override
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """Nearest neighbours; of equally similar items, the lower code comes first."""
        del parameters
        both = symmetric(sums["cooccurrences"], self.num_items)
        std = noise.of_pairs(both.diagonal()) if noise else 0.0
        both[insignificant(both, std)] = 0.0
        items = np.flatnonzero(both.diagonal())  # an item without users has no neighbours
        neighbours, similarities = np.zeros((2, self.num_items, self.num_neighbours), np.float32)
        size = max(_MAX_CELLS_PER_BLOCK // self.num_items, 1)
        num_nearest = min(self.num_neighbours, len(items))
        for start in range(0, len(items), size):
            rows = items[start : start + size]
            cosine = self._cosine(both, rows, items)
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :num_nearest]
            neighbours[rows, :num_nearest] = items[nearest]
            similarities[rows, :num_nearest] = np.take_along_axis(cosine, nearest, axis=1)
        return {"neighbours": neighbours, "similarities": similarities}

    @override
    def separates_items(self, solution: Tensors) -> bool:
        """Neighbour codes with similarity zero do not contribute to scores."""
        return bool(solution["similarities"].any())

    def _cosine(self, both: Float64Array, rows: IndexArray, columns: IndexArray) -> Float64Array:
        """Shrunk cosines (rows, columns) of items with users; 0 between an item and itself."""
        length = np.sqrt(both.diagonal())
        similar = both[np.ix_(rows, columns)]
        similar[rows[:, None] == columns] = 0.0
        similar /= np.outer(length[rows], length[columns]) + self.shrinkage
        return similar

    @override
    def score_histories(self, users: IndexArray) -> Float32Array:
        from scipy.sparse import csr_matrix

        similarities = self.value("similarities")
        is_used = similarities > 0
        item, _ = np.nonzero(is_used)
        neighbour = self.value("neighbours")[is_used].astype(np.int64)
        shape = (self.num_items, self.num_items)
        weights = csr_matrix((similarities[is_used], (neighbour, item)), shape)
        scores: Float32Array = (self._history[users] @ weights).toarray()
        return scores
