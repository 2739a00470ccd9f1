"""Genres of items, and how often a user or client consumed each."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.interactions import Interactions, genre_flags


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
        """Read the item table; no genres where it has none."""
        flags = genre_flags(interactions.items)
        of_item = flags.to_numpy(dtype=np.bool_).reshape(interactions.num_items, -1)
        return cls(flags.columns.to_numpy(dtype=object), of_item)

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
        from scipy.sparse import csr_array  # here: most partitions look at no genre

        num_items = len(self.of_item)
        consumed = csr_array(
            (np.ones(len(group), dtype=np.int32), (group, item)), shape=(num_groups, num_items)
        )
        counts = (consumed @ csr_array(self.of_item.astype(np.int32))).toarray()
        return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
