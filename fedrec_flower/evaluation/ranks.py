"""Ranks by counting, never by sorting the catalogue; ties count against the model."""

import numpy as np
from numpy.typing import NDArray

_COMPARED_AT_ONCE = 128_000  # scores; what a core's cache holds


def rank_held_out(
    held_scores: NDArray[np.float32],
    user: NDArray[np.int64],
    other_scores: NDArray[np.float32],
) -> NDArray[np.int64]:
    """Rank each held-out item among its user's candidates.

    An item's rank is its place among the user's held-out items plus the number of other
    candidates that score at least as much: a tied candidate ranks above it, so constant scores
    put every held-out item last.

    Args:
        held_scores: float32 (n,), finite.
        user: int64 (n,), the row in `other_scores` of each held-out item, ascending.
        other_scores: float32 (num_users, num_others); -inf marks what is no candidate.

    Returns:
        int64 (n,), the ranks, 1 is best, no two of a user alike.
    """
    place = np.empty(len(user), np.int64)
    first = np.searchsorted(user, user)  # where each user's held-out items begin
    place[np.lexsort((-held_scores, user))] = np.arange(1, len(user) + 1) - first
    above = np.empty(len(user), np.int64)
    size = max(_COMPARED_AT_ONCE // other_scores.shape[1], 1)
    for start in range(0, len(user), size):
        some = slice(start, start + size)
        is_above = other_scores[user[some]] >= held_scores[some, None]
        # As bytes into 32 bits: numpy sums truth values more slowly.
        above[some] = is_above.view(np.uint8).sum(axis=1, dtype=np.uint32)
    return place + above
