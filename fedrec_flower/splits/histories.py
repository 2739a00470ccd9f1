"""Histories: whether they are long enough, and cutting off their ends."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import DataError
from fedrec_flower.interactions import Interactions, Part, Split


def require_length(interactions: Interactions, needed: int) -> None:
    """Check that there are at least `needed` interactions in all.

    Raises:
        DataError: if there are fewer.
    """
    if len(interactions) < needed:
        raise DataError(
            f"the dataset {interactions.name} has {len(interactions)} interactions and this split "
            f"needs {needed}: lower split.test_fraction or split.validation_fraction"
        )


def require_histories(interactions: Interactions, needed: int) -> None:
    """Check that every user has at least `needed` interactions.

    Raises:
        DataError: if a user has fewer; names the first such user by its original id.
    """
    counts = np.bincount(interactions.user, minlength=interactions.num_users)
    short = np.flatnonzero(counts < needed)
    if len(short):
        user = short[0]
        raise DataError(
            f"user {interactions.user_ids[user]} has {counts[user]} interactions and this split "
            f"needs {needed} ({len(short)} of {interactions.num_users} users have fewer): "
            f"set dataset.min_interactions={needed}"
        )


def num_later(group: NDArray[np.int32], order: NDArray[np.intp]) -> NDArray[np.int64]:
    """Count, for each interaction, those of its group that come after it.

    Args:
        group: int32 (n,), non-negative, such as the user codes.
        order: int64 (n,), the positions of the interactions, ordered by group and then within it.

    Returns:
        int64 (n,), 0 for the last interaction of each group.
    """
    ends = np.cumsum(np.bincount(group))
    later = np.empty(len(group), dtype=np.int64)
    later[order] = ends[group[order]] - 1 - np.arange(len(group))
    return later


def cut(
    later: NDArray[np.int64],
    num_validation: NDArray[np.int64] | int,
    num_test: NDArray[np.int64] | int,
) -> Split:
    """Cut the end off each history: the last is test, what stands before it is validation.

    Args:
        later: int64 (n,), from `num_later`.
        num_validation: length of the validation part, one for all or one per interaction (n,).
        num_test: length of the test part, likewise.

    Returns:
        The split, in the order of the interactions.
    """
    part = np.full(len(later), Part.TRAIN, dtype=np.int8)
    part[later < num_test + num_validation] = Part.VALIDATION
    part[later < num_test] = Part.TEST
    return Split(part)
