"""How many users interacted with both of two items: a symmetric matrix, of which half travels."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.models.exact import Histories

_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64, whatever the catalogue


def cooccurrences(seen: Histories) -> NDArray[np.float64]:
    """Count the users of each pair of items.

    Counts stay exact as they travel in float32, up to 2**24 users.

    Args:
        seen: sparse (num_users, num_items) of ones.

    Returns:
        float64 (num_items * (num_items + 1) / 2,): the lower triangle, row after row; on its
        diagonal, the users of each item.
    """
    num_items = seen.shape[1]
    users_of, size = seen.T.tocsr(), max(_CELLS_AT_ONCE // num_items, 1)
    blocks = []
    for start in range(0, num_items, size):
        rows = (users_of[start : start + size] @ seen).toarray()
        blocks.append(rows[np.tri(len(rows), num_items, start, dtype=np.bool_)])
    return np.concatenate(blocks).astype(np.float64)


def symmetric(triangle: NDArray[np.float64], num_items: int) -> NDArray[np.float64]:
    """The whole matrix (num_items, num_items) of a lower triangle, as `cooccurrences` packs it."""
    lower = np.tri(num_items, dtype=np.bool_)
    whole = np.zeros((num_items, num_items))
    whole[lower] = triangle
    whole.T[lower] = triangle
    return whole
