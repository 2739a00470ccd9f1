"""Scores of users for the whole catalogue, ranks of held-out items, recommended lists.

Users are scored in batches to limit memory. Ranks are counted, the catalogue is never sorted; ties
count against the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.prepared import Columns
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Records, Scorer, Scores
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender

_SCORES_PER_BATCH = 500_000  # 2 MB of float32: a batch is scored, ranked and listed in the cache

_Name = TypeVar("_Name")


@dataclass(frozen=True, slots=True)
class ModelScorer:
    """Scores with the parameters that are loaded in a model.

    A user's scores may differ in the last bit between batches of other sizes, because BLAS may sum
    in another order.

    Attributes:
        model: a model with the rows of all users of the batch, and all item rows.
    """

    model: Recommender

    def batches(self, data: UserBatch, num_items: int) -> Iterator[tuple[slice, Scores]]:
        """Score users; see `Scorer.batches`."""
        load_histories(self.model, data)
        size = max(_SCORES_PER_BATCH // num_items, 1)
        for start in range(0, data.num_users, size):
            users = slice(start, min(start + size, data.num_users))
            yield users, score(self.model, users)


def load_histories(model: Recommender, data: UserBatch) -> None:
    """Load what a model reads of its users: histories, attributes."""
    if isinstance(model, SideInformation):
        model.load(model.side_information(data.attributes, data.train, None))
    if isinstance(model, HistoryBased):
        model.set_history(data.train)


def score(model: Recommender, users: slice) -> Scores:
    """Score every item for some of the users that are loaded in a model."""
    with torch.no_grad():
        scores = model.score_all(torch.arange(users.start, users.stop))
    return np.ascontiguousarray(scores.numpy(force=True), np.float32)


def finite_batches(
    scorer: Scorer, data: UserBatch, num_items: int
) -> Iterator[tuple[slice, Scores]]:
    """Score users, a few at a time; see `Scorer.batches`.

    Raises:
        TrainingError: if a score is not finite; names the client.
    """
    # Imported here: a server that only checks the settings needs no compiler.
    from fedrec_flower.evaluation import kernels

    for users, scores in scorer.batches(data, num_items):
        if not kernels.all_finite(scores.reshape(-1)):
            [user, *_] = np.flatnonzero(~np.isfinite(scores).all(axis=1))
            raise TrainingError(
                f"client {data.client_of(users.start + int(user))}: a score is not finite; lower "
                "the learning rates"
            )
        yield users, scores


def joined(parts: Sequence[Columns]) -> tuple[IndexArray, IndexArray]:
    """Join parts of the same users for the compiled loops.

    Returns:
        int64 (num_parts, num_users + 1), where the items of each user begin in each part; and
        int64 (n,), the items of all parts.
    """
    items = [part.item.astype(np.int64) for part in parts]
    offsets = [part.offsets for part in parts]
    for place in range(1, len(parts)):
        offsets[place] = offsets[place] + sum(map(len, items[:place]))
    return np.stack(offsets), np.concatenate(items)


def rank_held_out(scores: Scores, held_out: Columns, seen: Sequence[Columns]) -> IndexArray:
    """Rank each held-out item among its user's candidates: all items that are not seen.

    The rank of an item is its place among the user's held-out items plus the number of other
    candidates whose score is not lower. A tied candidate ranks above the item, so constant scores
    put every held-out item last.

    Args:
        scores: float32 (num_users, num_items), finite.
        held_out: the held-out items of these users, n in all.
        seen: parts whose items are no candidates; disjoint, also from the held-out items.

    Returns:
        int64 (n,), the ranks, 1 is best; different for all items of a user.
    """
    from fedrec_flower.evaluation import kernels

    rank = np.empty(len(held_out.item), np.int64)
    item = held_out.item.astype(np.int64)
    kernels.rank_in_catalogue(scores, held_out.offsets, item, *joined(seen), rank)
    return rank


def rank_among(scores: Scores, held_out: Columns, negatives: IndexArray) -> IndexArray:
    """Rank each held-out item among its user's held-out items and negatives, as `rank_held_out`.

    Args:
        scores: float32 (num_users, num_items), finite.
        held_out: the held-out items of these users, n in all.
        negatives: int64 (num_users, num_negatives), item codes.

    Returns:
        int64 (n,), the ranks.
    """
    from fedrec_flower.evaluation import kernels

    rank = np.empty(len(held_out.item), np.int64)
    item = held_out.item.astype(np.int64)
    kernels.rank_among(scores, held_out.offsets, item, negatives, rank)
    return rank


def recommend(scores: Scores, seen: Sequence[Columns], k: int) -> Records:
    """Return the k best unseen items of each user, best first; the lower item code wins a tie.

    Args:
        scores: float32 (num_users, num_items), finite.
        seen: parts whose items must not be recommended.
        k: length of the list.

    Returns:
        `per_user_recommended` int32 (num_users, k) and `per_user_score` float32 (num_users, k);
        places beyond the last item of a list have item -1 and score -inf.
    """
    from fedrec_flower.evaluation import kernels

    listed = np.full((len(scores), k), -1, np.int32)
    listed_score = np.full((len(scores), k), -np.inf, np.float32)
    kernels.best_items(scores, *joined(seen), listed, listed_score)
    return {"per_user_recommended": listed, "per_user_score": listed_score}


def concatenate(batches: Sequence[Mapping[_Name, NDArray[Any]]]) -> dict[_Name, NDArray[Any]]:
    """Concatenate the columns of batches."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
