"""The values that travel down the straight line: interactions, their split, their partition."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Ids = NDArray[Any]  # original ids, int64 or str


def _no_columns() -> "pd.DataFrame":
    # Imported here: nodes read interactions as arrays and need no tables.
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True, slots=True)
class Interactions:
    """Who interacted with what, integer-coded; codes follow the sorted order of the original ids.

    Attributes:
        user: int32 (n,), codes in [0, num_users).
        item: int32 (n,), codes in [0, num_items).
        rating: float32 (n,), raw rating units; None for implicit data.
        timestamp: int64 (n,), ticks since 1970; None where time is unknown.
        user_ids: (num_users,), the original id of each user code.
        item_ids: (num_items,), the original id of each item code.
        users: one row per user code, user attributes; no columns if there are none.
        items: one row per item code; a `title` (str), `year` (nullable int) and `genres`
            (str, "|" between genres) column where known; no columns if there are none.
        name: the dataset's name, for tables and figures.
        ticks_per_second: unit of `timestamp`: 1 for whole seconds, more where the source tells
            fractions of a second.
    """

    user: NDArray[np.int32]
    item: NDArray[np.int32]
    rating: NDArray[np.float32] | None
    timestamp: NDArray[np.int64] | None
    user_ids: Ids
    item_ids: Ids
    users: "pd.DataFrame" = field(default_factory=_no_columns)
    items: "pd.DataFrame" = field(default_factory=_no_columns)
    name: str = "unnamed"
    ticks_per_second: int = 1

    def __len__(self) -> int:
        """Number of interactions."""
        return len(self.user)

    @property
    def num_users(self) -> int:
        """Number of users, those without an interaction included."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Size of the catalogue, items without an interaction included."""
        return len(self.item_ids)


# What stands where a genre is unknown: nothing, or MovieLens' words for it.
_NO_GENRES = ["", "(no genres listed)"]


def genre_flags(items: "pd.DataFrame") -> "pd.DataFrame":
    """Which item has which genres.

    Args:
        items: an item table, with or without a `genres` column.

    Returns:
        bool (num_items, num_genres), a column per genre, sorted by name; no columns where no
        item has a genre.
    """
    if "genres" not in items.columns:
        return items[[]]
    flags = items["genres"].fillna("").astype(str).str.get_dummies(sep="|").astype(bool)
    return flags.drop(columns=_NO_GENRES, errors="ignore")


class Part(IntEnum):
    """Which part of a split an interaction belongs to."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True, slots=True)
class Split:
    """A label per interaction, so that no interaction is lost or stands in two parts.

    Attributes:
        part: int8 (n,), a `Part` for each interaction, in the order of the interactions.
    """

    part: NDArray[np.int8]

    def rows(self, part: Part) -> NDArray[np.intp]:
        """Positions of the interactions of one part, ascending."""
        return np.flatnonzero(self.part == part)


@dataclass(frozen=True, slots=True)
class Partition:
    """Which client holds which users.

    Attributes:
        client_of_user: int32 (num_users,), codes in [0, num_clients); every client has a user.
        client_names: (num_clients,), what to call each client in tables and figures.
    """

    client_of_user: NDArray[np.int32]
    client_names: Ids

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.client_names)
