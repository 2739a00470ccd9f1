"""Ranks by counting, never by sorting the catalogue; ties count against the model."""

import numpy as np
from numpy.typing import NDArray

_COMPARED_AT_ONCE = 4_000_000  # scores; bounds memory where users hold many items out


def rank_held_out(
    held_scores: NDArray[np.float32],
    user: NDArray[np.int64],
    other_scores: NDArray[np.float32],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rank each held-out item among its user's candidates.

    An item's rank is its place among the user's held-out items plus the number of other
    candidates that score at least as much: a tied candidate ranks above it, so constant scores
    put every held-out item last.

    Args:
        held_scores: float32 (n,), finite.
        user: int64 (n,), the row in `other_scores` of each held-out item, ascending.
        other_scores: float32 (num_users, num_others); -inf marks what is no candidate.

    Returns:
        int64 (n,), the ranks, 1 is best; and int64 (n,), the order that sorts them ascending
        within each user.
    """
    order = np.lexsort((-held_scores, user))
    first = np.searchsorted(user, user)  # where each user's held-out items begin
    place = np.empty(len(user), np.int64)
    place[order] = np.arange(len(user)) - first + 1
    above = np.empty(len(user), np.int64)
    size = max(_COMPARED_AT_ONCE // other_scores.shape[1], 1)
    for start in range(0, len(user), size):
        some = slice(start, start + size)
        above[some] = (other_scores[user[some]] >= held_scores[some, None]).sum(axis=1)
    return place + above, order
