"""Scores of a client's users for the whole catalogue, ranks of held-out items, recommended lists.

Users are scored in batches to limit memory. Ranks are counted, the catalogue is never sorted; ties
count against the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.evaluation.base import Records
from fedrec_flower.models.base import Recommender

Scores = Float32Array
"""Shape (num_users, num_items)."""

_SCORES_PER_BATCH = 4_000_000  # 16 MB of float32

_Name = TypeVar("_Name")


def score_in_batches(
    model: Recommender, data: ClientData, num_items: int
) -> Iterator[tuple[slice, Scores]]:
    """Score every item for the client's users, a batch of users at a time.

    Yields:
        The batch of users, counted from the client's first, and their scores, writable and finite.

    Raises:
        TrainingError: if a score is not finite; names the client.
    """
    size = max(_SCORES_PER_BATCH // num_items, 1)
    for start in range(0, data.num_users, size):
        users = slice(start, min(start + size, data.num_users))
        with torch.no_grad():
            scores = model.score_all(torch.arange(users.start, users.stop)).numpy(force=True)
        if not np.isfinite(scores).all():
            advice = "lower the learning rates"
            last = data.client + data.num_clients - 1
            who = f"client {last}" if data.num_clients == 1 else f"clients {data.client} to {last}"
            raise TrainingError(f"{who}: a score is not finite; {advice}")
        # A copy: a model may return a view of its parameters.
        yield users, np.array(scores, np.float32)


def recommend(scores: Scores, k: int) -> Records:
    """Return the k best items of each user, best first; the lower item code wins a tie.

    Args:
        scores: float32 (num_users, num_items); -inf for items that must not be recommended.
        k: length of the list.

    Returns:
        `per_user_recommended` int32 (num_users, k) and `per_user_score` float32 (num_users, k);
        -inf is the score of places beyond the last item of a list.
    """
    best = torch.from_numpy(scores).topk(k, sorted=False).indices.numpy()
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    score = np.take_along_axis(scores, best, axis=1)
    return {"per_user_recommended": best.astype(np.int32), "per_user_score": score}


def concatenate(batches: Sequence[Mapping[_Name, NDArray[Any]]]) -> dict[_Name, NDArray[Any]]:
    """Concatenate the columns of one client's batches."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


_COMPARISONS_PER_BATCH = 128_000  # scores; they fit into the cache of a core


def rank_held_out(
    held_scores: Float32Array,
    user: IndexArray,
    other_scores: Float32Array,
) -> IndexArray:
    """Rank each held-out item among its user's candidates.

    The rank of an item is its place among the user's held-out items plus the number of other
    candidates whose score is not lower. A tied candidate ranks above the item, so constant scores
    put every held-out item last.

    Args:
        held_scores: float32 (n,), finite.
        user: int64 (n,), the row in `other_scores` of each held-out item, ascending.
        other_scores: float32 (num_users, num_others); -inf for items that are not candidates.

    Returns:
        int64 (n,), the ranks, 1 is best; different for all items of a user.
    """
    place = np.empty(len(user), np.int64)
    first = np.searchsorted(user, user)  # index of each user's first held-out item
    place[np.lexsort((-held_scores, user))] = np.arange(1, len(user) + 1) - first
    above = np.empty(len(user), np.int64)
    size = max(_COMPARISONS_PER_BATCH // other_scores.shape[1], 1)
    for start in range(0, len(user), size):
        batch = slice(start, start + size)
        is_above = other_scores[user[batch]] >= held_scores[batch, None]
        # As bytes summed to 32 bits: numpy sums booleans more slowly.
        above[batch] = is_above.view(np.uint8).sum(axis=1, dtype=np.uint32)
    return place + above
