"""Most popular: everybody gets the same list, but for what they have.

Shared: how many users interacted with each item. Personal: nothing. A client sends 4 bytes per
item once, and receives as much.

Source: Cremonesi, Koren and Turrin 2010, section 3.1 (TopPop).
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise, incidence


class Popularity(ClosedFormRecommender):
    """Score = number of users who interacted with the item.

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"popularity"})
    statistic_names: ClassVar[tuple[str, ...]] = ("num_users_of_item",)
    bounded: ClassVar[bool] = True

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.popularity = nn.Parameter(torch.zeros(num_items))

    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        """See `ClosedFormRecommender.statistics`; float64 (num_items,)."""
        del parameters
        each = None if share is None else share[history.users()]
        counts = np.bincount(history.item, each, minlength=self.num_items)
        return {"num_users_of_item": counts.astype(np.float64)}

    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        """See `ClosedFormRecommender.statistic_norms`; of a client's counts."""
        by_client = Columns(history.offsets[user_offsets], history.item, None)
        # Copied, for duplicates are summed in place, in the history's own arrays.
        counts = incidence(by_client, self.num_items, np.ones(len(user_offsets) - 1)).copy()
        counts.sum_duplicates()
        client = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        squares = np.bincount(client, counts.data**2, minlength=counts.shape[0])
        return np.sqrt(squares)

    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        """See `ClosedFormRecommender.debiased`."""
        told = sums["num_users_of_item"]
        return {"num_users_of_item": (told - flip_rate * num_users) / (1 - 2 * flip_rate)}

    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        """See `ClosedFormRecommender.solve`; the counts themselves."""
        del parameters, noise
        return {"popularity": sums["num_users_of_item"].astype(np.float32)}

    def score_histories(self, users: IndexArray) -> Float32Array:
        """See `ClosedFormRecommender.score_histories`."""
        return np.tile(self.value("popularity"), (len(users), 1))
