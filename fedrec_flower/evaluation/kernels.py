"""Compiled loops over the scores of a batch of users: checks, ranks, lists, negatives.

Items that users have seen are given as by `scoring.joined`: one row of offsets for each part of
the data.
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, IndexArray

_BLOCK = 64  # scores that are compared with the worst listed score at once


@compiled
def all_finite(scores: Float32Array) -> bool:
    """Return whether all scores (n,) are finite."""
    num_finite = 0
    for place in range(len(scores)):
        num_finite += scores[place] - scores[place] == 0  # inf - inf is NaN
    return num_finite == len(scores)


@compiled
def _count_at_least(scores: Float32Array, threshold: np.float32) -> int:
    count = 0
    for place in range(len(scores)):
        count += scores[place] >= threshold
    return count


@compiled
def _count_above(scores: Float32Array, threshold: np.float32) -> int:
    count = 0
    for place in range(len(scores)):
        count += scores[place] > threshold
    return count


@compiled
def rank_in_catalogue(
    scores: Float32Array,
    offsets: IndexArray,
    item: IndexArray,
    seen_offsets: IndexArray,
    seen_item: IndexArray,
    rank: IndexArray,
) -> None:
    """Fill `rank`, (n,), with the ranks of held-out items among all items; see `rank_held_out`."""
    for user in range(len(scores)):
        row = scores[user]
        start, stop = offsets[user], offsets[user + 1]
        for place in range(start, stop):
            own = row[item[place]]
            above = _count_at_least(row, own)
            for bounds in seen_offsets:
                for seen in range(bounds[user], bounds[user + 1]):
                    above -= row[seen_item[seen]] >= own
            # Of the user's held-out items, those above are better, or equal and listed before.
            for other in range(start, stop):
                is_counted = row[item[other]] >= own
                is_above = row[item[other]] > own or (is_counted and other < place)
                above += is_above - is_counted
            rank[place] = above + 1


@compiled
def rank_among(
    scores: Float32Array,
    offsets: IndexArray,
    item: IndexArray,
    negatives: IndexArray,
    rank: IndexArray,
) -> None:
    """Fill `rank`, (n,), with the ranks of held-out items among the negatives of their users."""
    for user in range(len(scores)):
        row = scores[user]
        start, stop = offsets[user], offsets[user + 1]
        for place in range(start, stop):
            own = row[item[place]]
            above = 0
            for negative in negatives[user]:
                above += row[negative] >= own
            for other in range(start, stop):
                score = row[item[other]]
                above += score > own or (score == own and other < place)
            rank[place] = above + 1


@compiled
def _insert(
    best: NDArray[np.int32], best_score: Float32Array, size: int, item: int, score: np.float32
) -> None:
    """Insert an item below the listed items that are not worse; a full list loses its last."""
    slot = min(size, len(best) - 1)
    while slot > 0 and best_score[slot - 1] < score:
        best[slot], best_score[slot] = best[slot - 1], best_score[slot - 1]
        slot -= 1
    best[slot], best_score[slot] = item, score


@compiled
def best_items(
    scores: Float32Array,
    seen_offsets: IndexArray,
    seen_item: IndexArray,
    listed: NDArray[np.int32],
    listed_score: Float32Array,
) -> None:
    """Fill the lists, (num_users, k), with the best unseen items of each user; see `recommend`."""
    num_items = scores.shape[1]
    k = listed.shape[1]
    seen_by = np.full(num_items, -1, np.int64)  # the last user who has seen the item
    for user in range(len(scores)):
        for bounds in seen_offsets:
            for place in range(bounds[user], bounds[user + 1]):
                seen_by[seen_item[place]] = user
        row, best, best_score = scores[user], listed[user], listed_score[user]
        size = 0
        for start in range(0, num_items, _BLOCK):
            block = row[start : start + _BLOCK]
            # Most blocks have no item that is better than the last of the list.
            if size == k and _count_above(block, best_score[k - 1]) == 0:
                continue
            for place in range(len(block)):
                score = block[place]
                if size == k and score <= best_score[k - 1]:
                    continue
                if seen_by[start + place] == user:
                    continue
                _insert(best, best_score, size, start + place, score)
                size = min(size + 1, k)


@compiled
def first_unseen(
    drawn: IndexArray,
    seen_offsets: IndexArray,
    seen_item: IndexArray,
    num_items: int,
    negatives: IndexArray,
) -> IndexArray:
    """Fill `negatives`, (num_users, n), with the first distinct unseen items of each row drawn.

    Returns:
        int64 (num_users,), the number of items found, at most n.
    """
    marked_by = np.full(num_items, -1, np.int64)  # the last user who has the item
    found = np.zeros(len(drawn), np.int64)
    width = negatives.shape[1]
    for user in range(len(drawn)):
        for bounds in seen_offsets:
            for place in range(bounds[user], bounds[user + 1]):
                marked_by[seen_item[place]] = user
        count = 0
        for place in range(drawn.shape[1]):
            item = drawn[user, place]
            if marked_by[item] == user:
                continue
            marked_by[item] = user
            negatives[user, count] = item
            count += 1
            if count == width:
                break
        found[user] = count
    return found
