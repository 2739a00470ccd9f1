"""A fixed hash of (original user id, original item id) that orders interactions at equal times.

It must not depend on the file order, the process, the platform or the integer codes, so neither
Python's salted `hash()` nor the codes can be used. The item id itself would be a biased order: in
MovieLens, low ids are popular films.

Source: SplitMix64, Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import splitmix64_finalize
from fedrec_flower.data.interactions import Ids, Interactions

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def splitmix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply one step of SplitMix64 to each value: a bijection that spreads close values.

    Args:
        values: uint64, any shape except a scalar (numpy warns about the intended overflow of a
            scalar).

    Returns:
        uint64, shaped like `values`.
    """
    return splitmix64_finalize(values + _GOLDEN)


def hash_ids(ids: Ids) -> NDArray[np.uint64]:
    """Hash original ids.

    Args:
        ids: (n,), integers or strings; values of other types are hashed as strings.

    Returns:
        uint64 (n,), equal for equal ids on every platform.
    """
    if ids.dtype.kind in "iu":
        return splitmix64(ids.astype(np.int64).view(np.uint64))
    strings = np.ascontiguousarray(ids.astype(np.str_))
    characters = strings.view(np.uint32).reshape(len(strings), strings.dtype.itemsize // 4)
    hashed = np.zeros(len(strings), dtype=np.uint64)
    # Loop over the character positions, not over the ids.
    for column in characters.T.astype(np.uint64):
        # Shorter ids are padded with zeros. The padding must not change the hash.
        hashed = np.where(column > 0, splitmix64(hashed ^ column), hashed)
    return hashed


def tie_hash(interactions: Interactions, rows: NDArray[np.intp]) -> NDArray[np.uint64]:
    """Hash the pair of original ids of the given interactions.

    Args:
        interactions: n interactions.
        rows: int64 (num_rows,), indices of interactions.

    Returns:
        uint64 (num_rows,).
    """
    users, items = hash_ids(interactions.user_ids), hash_ids(interactions.item_ids)
    # The user is hashed twice, so that the pair (3, 5) differs from the pair (5, 3).
    return splitmix64(splitmix64(users)[interactions.user[rows]] ^ items[interactions.item[rows]])
