"""Most popular: all users get the same list, without the items that they have.

Shared: the number of users of each item. Personal: none. A client sends 4 bytes per item once,
and receives as many.

Source: Cremonesi, Koren and Turrin 2010, section 3.1 (TopPop).
"""

from typing import ClassVar

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Sums, Tensors
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import NO_NOISE, ClosedFormRecommender, Noise, incidence
from fedrec_flower.models.layers import PerItem


class Popularity(ClosedFormRecommender):
    """Score = number of users who interacted with the item.

    Args:
        num_users: number of users that are loaded first.
        num_items: size of the catalogue.
    """

    statistic_names: ClassVar[tuple[str, ...]] = ("num_users_of_item",)
    bounded: ClassVar[bool] = True

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.popularity = PerItem(nn.Parameter(torch.zeros(num_items)))

    @override
    def statistics(
        self, history: Columns, parameters: Tensors, share: Float64Array | None = None
    ) -> Sums:
        del parameters
        weights = None if share is None else share[history.users()]
        counts = np.bincount(history.item, weights, minlength=self.num_items)
        return {"num_users_of_item": counts.astype(np.float64)}

    @override
    def statistic_norms(self, history: Columns, user_offsets: IndexArray) -> Float64Array:
        by_client = Columns(history.offsets[user_offsets], history.item, None)
        # Copied, because `sum_duplicates` works in place, in the arrays of the history.
        counts = incidence(by_client, self.num_items, np.ones(len(user_offsets) - 1)).copy()
        counts.sum_duplicates()
        client = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        squares = np.bincount(client, counts.data**2, minlength=counts.shape[0])
        return np.sqrt(squares)

    @override
    def debiased(self, sums: Sums, flip_rate: float, num_users: float) -> Sums:
        counts = sums["num_users_of_item"]
        return {"num_users_of_item": (counts - flip_rate * num_users) / (1 - 2 * flip_rate)}

    @override
    def solve(self, sums: Sums, parameters: Tensors, noise: Noise = NO_NOISE) -> Tensors:
        del parameters, noise
        return {"popularity": sums["num_users_of_item"].astype(np.float32)}

    @override
    def score_histories(self, users: IndexArray) -> Float32Array:
        return np.tile(self.value("popularity"), (len(users), 1))
