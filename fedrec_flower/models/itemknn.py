"""ItemKNN: items that the same users had are alike; a user is offered what is like their own.

Shared: each item's nearest neighbours and their similarities. Personal: nothing. With m items
and k neighbours a client sends 2 m (m + 1) bytes once (how many of its users had both of two
items) and receives 8 m k: 5.7 and 1.0 MB for 1,682 items and 75 neighbours. The server holds a
float64 matrix of 8 m ** 2 bytes.

Source: Deshpande and Karypis 2004, with the shrinkage of Bell and Koren 2007; Ferrari Dacrema et
al. 2021, section 3.2, for the two together.
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise, incidence
from fedrec_flower.models.ops.cooccurrence import (
    cooccurrences,
    debiased,
    insignificant,
    norms,
    symmetric,
)

_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64, whatever the catalogue


class ItemKNN(ClosedFormRecommender):
    """Score = sum of the similarities to those of the item's neighbours that the user had.

    The similarity of two items is the cosine of their columns of users, shrunk:
    both / (sqrt(one * other) + shrinkage), where `both` users had both.

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
        num_neighbours: how many neighbours an item keeps, at least 1.
        shrinkage: added to the denominator, in users; mistrusts what few users tell. 0: cosine.
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"neighbours", "similarities"})
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
        # Item codes, exact in float32 below 2**24; a similarity of 0 fills an item's list.
        self.neighbours = nn.Parameter(torch.zeros(num_items, num_neighbours))
        self.similarities = nn.Parameter(torch.zeros(num_items, num_neighbours))
        self.num_neighbours, self.shrinkage = num_neighbours, shrinkage

    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """See `ClosedFormRecommender.statistics`; the packed co-occurrences."""
        del parameters
        value = None if share is None else np.sqrt(share)
        return {"cooccurrences": cooccurrences(incidence(history, self.num_items, value))}

    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        """See `ClosedFormRecommender.statistic_norms`; of a client's co-occurrences."""
        return norms(history, user_offsets, self.num_items)

    def largest_std(self, noise: Noise) -> float:
        """See `ClosedFormRecommender.largest_std`; of a pair of items."""
        return float(noise.of_pairs(np.full(2, noise.num_users))[0, 1])

    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        """See `ClosedFormRecommender.debiased`."""
        pairs = debiased(sums["cooccurrences"], self.num_items, flip_rate, num_users)
        return {"cooccurrences": pairs}

    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """See `ClosedFormRecommender.solve`; of equally similar items, the lower code is nearer."""
        del parameters
        both = symmetric(sums["cooccurrences"], self.num_items)
        both[insignificant(both, noise.of_pairs(both.diagonal()) if noise else 0.0)] = 0.0
        had = np.flatnonzero(both.diagonal())  # what nobody had is like nothing
        neighbours, similarities = np.zeros((2, self.num_items, self.num_neighbours), np.float32)
        size, kept = max(_CELLS_AT_ONCE // self.num_items, 1), min(self.num_neighbours, len(had))
        for start in range(0, len(had), size):
            rows = had[start : start + size]
            cosine = self._cosine(both, rows, had)
            nearest = np.argsort(-cosine, axis=1, kind="stable")[:, :kept]
            neighbours[rows, :kept] = had[nearest]
            similarities[rows, :kept] = np.take_along_axis(cosine, nearest, axis=1)
        return {"neighbours": neighbours, "similarities": similarities}

    def tells_items_apart(self, solution: Tensors) -> bool:
        """Neighbour codes alone give every item a score of zero."""
        return bool(solution["similarities"].any())

    def _cosine(self, both: Float64Array, rows: IndexArray, columns: IndexArray) -> Float64Array:
        """Shrunk cosines (rows, columns) of items that somebody had; 0 to an item itself."""
        length = np.sqrt(both.diagonal())
        similar = both[np.ix_(rows, columns)]
        similar[rows[:, None] == columns] = 0.0
        similar /= np.outer(length[rows], length[columns]) + self.shrinkage
        return similar

    def score_histories(self, users: IndexArray) -> Float32Array:
        """See `ClosedFormRecommender.score_histories`."""
        from scipy.sparse import csr_matrix

        similarities = self.value("similarities")
        near = similarities > 0
        item, _ = np.nonzero(near)
        place = (self.value("neighbours")[near].astype(np.int64), item)
        whole = csr_matrix((similarities[near], place), (self.num_items, self.num_items))
        scores: Float32Array = (self._seen[users] @ whole).toarray()
        return scores
