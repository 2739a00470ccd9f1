"""Scoring a client's users against the whole catalogue, in batches that bound memory.

Ranks by counting, never by sorting the catalogue; ties count against the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.evaluation.base import Records
from fedrec_flower.models.base import Recommender

Scores = NDArray[np.float32]  # (num_users, num_items)

_SCORES_AT_ONCE = 4_000_000  # 16 MB of float32, whatever the catalogue

_Name = TypeVar("_Name")


def score_in_batches(
    model: Recommender, data: ClientData, num_items: int
) -> Iterator[tuple[slice, Scores]]:
    """Score every item for a few of the client's users at a time.

    Yields:
        The users, counted from the client's first, and their scores, writable and finite.

    Raises:
        TrainingError: if a score is not finite; names the client.
    """
    size = max(_SCORES_AT_ONCE // num_items, 1)
    for start in range(0, data.num_users, size):
        users = slice(start, min(start + size, data.num_users))
        with torch.no_grad():
            scores = model.score_all(torch.arange(users.start, users.stop)).numpy(force=True)
        if not np.isfinite(scores).all():
            advice = "lower the learning rates"
            last = data.client + data.num_clients - 1
            who = f"client {last}" if data.num_clients == 1 else f"clients {data.client} to {last}"
            raise TrainingError(f"{who}: a score is not finite; {advice}")
        # A copy: a model may answer with a view of its parameters.
        yield users, np.array(scores, np.float32)


def recommend(scores: Scores, k: int) -> Records:
    """The k best items of each user, best first; the lower item code wins a tie.

    Args:
        scores: float32 (num_users, num_items); -inf marks what must not be recommended.
        k: length of the list.

    Returns:
        `per_user_recommended` int32 (num_users, k) and `per_user_score` float32 (num_users, k);
        a score of -inf fills a list that has too few items.
    """
    best = torch.from_numpy(scores).topk(k, sorted=False).indices.numpy()
    best.sort(axis=1)
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1, kind="stable")
    best = np.take_along_axis(best, order, axis=1)
    score = np.take_along_axis(scores, best, axis=1)
    return {"per_user_recommended": best.astype(np.int32), "per_user_score": score}


def concatenate(batches: Sequence[Mapping[_Name, NDArray[Any]]]) -> dict[_Name, NDArray[Any]]:
    """Join the columns of one client's batches, user after user."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


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
