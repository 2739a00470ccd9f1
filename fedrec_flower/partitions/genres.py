"""Genres of items, and how often a user or client consumed each."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from fedrec_flower.interactions import Interactions

# What stands where a genre is unknown: nothing, or MovieLens' words for it.
_NO_GENRES = ["", "(no genres listed)"]


@dataclass(frozen=True, slots=True)
class Genres:
    """Which item has which genres.

    Attributes:
        names: object (num_genres,), str, sorted; empty where the items have no genres.
        of_item: bool (num_items, num_genres); an item may have several genres, or none.
    """

    names: NDArray[np.object_]
    of_item: NDArray[np.bool_]

    @classmethod
    def read(cls, interactions: Interactions) -> Self:
        """Read the `genres` column of the item table; no genres where there is none."""
        if "genres" not in interactions.items.columns:
            of_item = np.zeros((interactions.num_items, 0), dtype=np.bool_)
            return cls(np.array([], dtype=object), of_item)
        column = interactions.items["genres"].fillna("").astype(str)
        table = column.str.get_dummies(sep="|").drop(columns=_NO_GENRES, errors="ignore")
        return cls(table.columns.to_numpy(dtype=object), table.to_numpy(dtype=np.bool_))

    def top(
        self, group: NDArray[np.int32], item: NDArray[np.int32], num_groups: int
    ) -> NDArray[np.int64]:
        """The genre that each group consumed most.

        An interaction counts once for each genre of its item; of genres that tie, the
        alphabetically first wins.

        Args:
            group: int32 (n,), the group (a user, a client) of each interaction.
            item: int32 (n,), the item code of each interaction.
            num_groups: number of groups.

        Returns:
            int64 (num_groups,), positions in `names`; -1 where a group consumed no genre.
        """
        num_items = len(self.of_item)
        consumed = csr_array(
            (np.ones(len(group), dtype=np.int32), (group, item)), shape=(num_groups, num_items)
        )
        counts = (consumed @ csr_array(self.of_item.astype(np.int32))).toarray()
        return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
