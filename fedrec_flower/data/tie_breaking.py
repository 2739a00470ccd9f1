"""A fixed hash of (original user id, original item id): what breaks ties in time.

It must not depend on the file order, the process, the platform or the coding, so Python's salted
`hash()` and the integer codes are both out. Breaking ties by item id would be biased instead: low
ids are popular films.

Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import splitmix64_finalize
from fedrec_flower.data.interactions import Ids, Interactions

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """One step of SplitMix64 on each value: a bijection that scatters neighbours.

    Args:
        values: uint64, any shape but a scalar (a scalar would warn about the wanted overflow).

    Returns:
        uint64, shaped like `values`.
    """
    return splitmix64_finalize(values + _GOLDEN)


def hash_ids(ids: Ids) -> NDArray[np.uint64]:
    """Hash original ids.

    Args:
        ids: (n,), integers or strings; anything else is hashed by its string form.

    Returns:
        uint64 (n,), the same for the same id on every platform.
    """
    if ids.dtype.kind in "iu":
        return splitmix64(ids.astype(np.int64).view(np.uint64))
    strings = np.ascontiguousarray(ids.astype(np.str_))
    characters = strings.view(np.uint32).reshape(len(strings), strings.dtype.itemsize // 4)
    hashed = np.zeros(len(strings), dtype=np.uint64)
    # One column per character position: a loop over the longest id, not over the ids.
    for column in characters.T.astype(np.uint64):
        # Shorter ids are padded with zeros, which must not count: the width is the column's.
        hashed = np.where(column > 0, splitmix64(hashed ^ column), hashed)
    return hashed


def tie_hash(interactions: Interactions, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Hash the pair of original ids of some interactions.

    Args:
        interactions: n interactions.
        rows: int64 (num_rows,), positions of interactions.

    Returns:
        uint64 (num_rows,).
    """
    users, items = hash_ids(interactions.user_ids), hash_ids(interactions.item_ids)
    # The user is mixed once more, so that the pair (3, 5) differs from the pair (5, 3).
    return splitmix64(splitmix64(users)[interactions.user[rows]] ^ items[interactions.item[rows]])
