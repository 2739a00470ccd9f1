"""The values of data preparation: interactions, their split and their partition."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Ids = NDArray[Any]  # original ids, int64 or str


def _no_columns() -> "pd.DataFrame":
    # Imported here: nodes read interactions as arrays and do not need pandas.
    import pandas as pd

    return pd.DataFrame()


@dataclass(frozen=True, slots=True)
class Interactions:
    """User-item interactions with integer codes, in the sorted order of the original ids.

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
        ticks_per_second: unit of `timestamp`: 1 for whole seconds, more where the source has
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
        """Number of users, including users without interactions."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Size of the catalogue, including items without interactions."""
        return len(self.item_ids)


# Values of an unknown genre: an empty text, or the text that MovieLens uses.
_NO_GENRES = ["", "(no genres listed)"]


def genre_flags(items: "pd.DataFrame") -> "pd.DataFrame":
    """The genres of each item, as flags.

    Args:
        items: an item table, with or without a `genres` column.

    Returns:
        bool (num_items, num_genres), one column per genre, sorted by name; no columns if no
        item has a genre.
    """
    if "genres" not in items.columns:
        return items[[]]
    flags = items["genres"].fillna("").astype(str).str.get_dummies(sep="|").astype(bool)
    return flags.drop(columns=_NO_GENRES, errors="ignore")


class Part(IntEnum):
    """Part of a split."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2


@dataclass(frozen=True, slots=True)
class Split:
    """One label per interaction: each interaction is in exactly one part.

    Attributes:
        part: int8 (n,), a `Part` for each interaction, in the order of the interactions.
    """

    part: NDArray[np.int8]

    def rows(self, part: Part) -> NDArray[np.intp]:
        """Positions of the interactions of one part, ascending."""
        return np.flatnonzero(self.part == part)


@dataclass(frozen=True, slots=True)
class Partition:
    """Assignment of users to clients.

    Attributes:
        client_of_user: int32 (num_users,), codes in [0, num_clients); every client has a user.
        client_names: (num_clients,), the name of each client in tables and figures.
    """

    client_of_user: NDArray[np.int32]
    client_names: Ids

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.client_names)
