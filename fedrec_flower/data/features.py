"""Attribute tables as numbers: public item features, private user attributes, and item genres.

Item attributes are public. Of the user attributes only the *schema* is public: the attributes, the
categories of each and the edges of its ranges, as on an empty form. The values of a user are
encoded on the device and stay there. A simulation derives the schema from the whole user table.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, IndexArray
from fedrec_flower.data.interactions import Interactions, genre_flags

_MAX_CATEGORIES = 32  # a numeric column with more values is cut into ranges
_MIN_USERS_PER_CATEGORY = 2  # on average; below this, a column identifies users
_NUM_RANGES = 8  # of a numeric user attribute, equally wide
_NUM_PERIODS = 20  # of item years, equally filled; fewer if many items share a year


def item_features(items: pd.DataFrame, num_items: int) -> pd.DataFrame:
    """Encode genres and years.

    Args:
        items: one row per item code, see `Interactions.items`; no rows without attributes.
        num_items: size of the catalogue.

    Returns:
        float32 (num_items, num_features), one named column per feature: a flag per genre, a flag
        per period of years, and the year, scaled from 0 (the earliest) to 1 (the latest). An
        unknown year gives zeros. Genres and periods without items have no column.
    """
    columns = [genre_flags(items).add_prefix("genre=")]
    if "year" in items:
        columns.append(
            _year_columns(pd.to_numeric(items["year"], errors="coerce").astype(np.float64))
        )
    return _concat_columns(columns, num_items)


def _year_columns(year: "pd.Series[float]") -> pd.DataFrame:
    first, last = year.min(), year.max()
    if not first < last:  # all equal, or all unknown
        return pd.DataFrame()
    periods = _flags(pd.qcut(year, _NUM_PERIODS, duplicates="drop"), "year")
    return periods.assign(year=((year - first) / (last - first)).fillna(0.0))


def user_features(users: pd.DataFrame, num_users: int) -> pd.DataFrame:
    """Encode attributes.

    Args:
        users: one row per user code, one column per attribute; no rows without attributes.
        num_users: number of users.

    Returns:
        float32 (num_users, num_attributes), flags in named columns: one per category of an
        attribute with few values, one per range of a number with many values. Text with many
        values, such as a zip code, is left out. A missing value gives zeros.
    """
    return _concat_columns(list(_attribute_columns(users)), num_users)


def _attribute_columns(users: pd.DataFrame) -> Iterator[pd.DataFrame]:
    for name, column in users.items():
        distinct = column.nunique()
        if 1 < distinct <= min(_MAX_CATEGORIES, len(users) // _MIN_USERS_PER_CATEGORY):
            yield _flags(column, str(name))
        elif distinct > 1 and pd.api.types.is_numeric_dtype(column):
            yield _flags(pd.cut(column.astype(np.float64), _NUM_RANGES), str(name))


def _flags(column: "pd.Series[Any]", name: str) -> pd.DataFrame:
    """One flag per category, sorted."""
    return pd.get_dummies(column, prefix=name, prefix_sep="=", dtype=np.float32)


def _concat_columns(columns: list[pd.DataFrame], num_rows: int) -> pd.DataFrame:
    """The columns side by side; `num_rows` rows even without any column."""
    not_empty = [column.reset_index(drop=True) for column in columns if column.size]
    rows = pd.DataFrame(index=pd.RangeIndex(num_rows))
    return pd.concat([rows, *not_empty], axis="columns").astype(np.float32)


@dataclass(frozen=True, slots=True)
class Genres:
    """The genres of each item.

    Attributes:
        names: object (num_genres,), str, sorted; empty if the items have no genres.
        of_item: bool (num_items, num_genres); an item can have several genres, or none.
    """

    names: NDArray[np.object_]
    of_item: BoolArray

    @classmethod
    def read(cls, interactions: Interactions) -> Self:
        """Read the genres from the item table."""
        flags = genre_flags(interactions.items)
        of_item = flags.to_numpy(dtype=np.bool_).reshape(interactions.num_items, -1)
        return cls(flags.columns.to_numpy(dtype=object), of_item)

    def top(self, group: NDArray[np.int32], item: NDArray[np.int32], num_groups: int) -> IndexArray:
        """The genre that each group consumed most.

        An interaction counts once for each genre of its item. Ties go to the alphabetically first
        genre.

        Args:
            group: int32 (n,), the group (a user, a client) of each interaction.
            item: int32 (n,), the item code of each interaction.
            num_groups: number of groups.

        Returns:
            int64 (num_groups,), indices into `names`; -1 if a group consumed no genre.
        """
        from scipy.sparse import csr_array  # imported here: most partitions use no genres

        num_items = len(self.of_item)
        consumed = csr_array(
            (np.ones(len(group), dtype=np.int32), (group, item)), shape=(num_groups, num_items)
        )
        counts = (consumed @ csr_array(self.of_item.astype(np.int32))).toarray()
        return np.where(counts.any(axis=1), counts.argmax(axis=1), -1)
