"""Most popular: everybody gets the same list, but for what they have.

Shared: how many users interacted with each item. Personal: nothing. A client sends 4 bytes per
item once, and receives as much.

Source: Cremonesi, Koren and Turrin 2010, section 3.1 (TopPop).
"""

from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fedrec_flower.models.base import Tensors
from fedrec_flower.models.exact import ExactRecommender, Sums
from fedrec_flower.prepared import Columns


class Popularity(ExactRecommender):
    """Score = number of users who interacted with the item.

    Args:
        num_users: how many users are loaded at first.
        num_items: size of the catalogue.
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"popularity"})
    statistic_names: ClassVar[tuple[str, ...]] = ("num_users_of_item",)

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.popularity = nn.Parameter(torch.zeros(num_items))

    def statistics(self, history: Columns, parameters: Tensors) -> Sums:
        """See `ExactRecommender.statistics`; float64 (num_items,)."""
        del parameters
        counts = np.bincount(history.item, minlength=self.num_items)
        return {"num_users_of_item": counts.astype(np.float64)}

    def solve(self, sums: Sums, parameters: Tensors) -> Tensors:
        """See `ExactRecommender.solve`; the counts themselves."""
        del parameters
        return {"popularity": sums["num_users_of_item"].astype(np.float32)}

    def score_histories(self, users: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `ExactRecommender.score_histories`."""
        return np.tile(self.value("popularity"), (len(users), 1))
