"""Tables of attributes as numbers: public features of items, and of users what stays with them.

Of an item everybody may know everything. Of users only the *schema* is public: which attributes
there are, the categories of each, and the edges of its ranges, as a form that users fill in has
them. What a user filled in is encoded on the device and stays there. In a simulation the schema is
read off the whole table.

Genres of items, and how often a user or client consumed each.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.data.interactions import Interactions, genre_flags

_MOST_CATEGORIES = 32  # a column with more values is cut into ranges if it holds numbers
_USERS_PER_CATEGORY = 2  # with fewer, on average, a column names users more than it describes them
_NUM_RANGES = 8  # of a user's number, equally wide
_NUM_PERIODS = 20  # of items' years, equally filled; fewer where many items share a year


def item_features(items: pd.DataFrame, num_items: int) -> pd.DataFrame:
    """Encode genres and years.

    Args:
        items: a row per item code, see `Interactions.items`; no rows if nothing is known.
        num_items: size of the catalogue.

    Returns:
        float32 (num_items, num_features), a named column per feature: a flag per genre, a flag per
        period of years, and the year itself, scaled from 0 (the first) to 1 (the last). Unknown
        years are all zeros; there is no column of what no item has.
    """
    found = [genre_flags(items).add_prefix("genre=")]
    if "year" in items:
        found.append(_of_years(pd.to_numeric(items["year"], errors="coerce").astype(np.float64)))
    return _joined(found, num_items)


def _of_years(year: "pd.Series[float]") -> pd.DataFrame:
    first, last = year.min(), year.max()
    if not first < last:  # all alike, or none known
        return pd.DataFrame()
    periods = _flags(pd.qcut(year, _NUM_PERIODS, duplicates="drop"), "year")
    return periods.assign(year=((year - first) / (last - first)).fillna(0.0))


def user_features(users: pd.DataFrame, num_users: int) -> pd.DataFrame:
    """Encode attributes.

    Args:
        users: a row per user code and a column per attribute; no rows if nothing is known.
        num_users: number of users.

    Returns:
        float32 (num_users, num_attributes) of flags, a named column each: one per category of an
        attribute with few, one per range of a number with many values. Text with many values, such
        as a zip code, is left out. A missing value is all zeros.
    """
    return _joined(list(_of_users(users)), num_users)


def _of_users(users: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for name, column in users.items():
        distinct = column.nunique()
        if 1 < distinct <= min(_MOST_CATEGORIES, len(users) // _USERS_PER_CATEGORY):
            yield _flags(column, str(name))
        elif distinct > 1 and pd.api.types.is_numeric_dtype(column):
            yield _flags(pd.cut(column.astype(np.float64), _NUM_RANGES), str(name))


def _flags(column: "pd.Series[Any]", name: str) -> pd.DataFrame:
    """A flag per category, sorted."""
    return pd.get_dummies(column, prefix=name, prefix_sep="=", dtype=np.float32)


def _joined(columns: list[pd.DataFrame], num_rows: int) -> pd.DataFrame:
    """The columns side by side, a row for everyone even where there is no column."""
    whole = [column.reset_index(drop=True) for column in columns if column.size]
    everyone = pd.RangeIndex(num_rows)
    return pd.concat([pd.DataFrame(index=everyone), *whole], axis="columns").astype(np.float32)


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
