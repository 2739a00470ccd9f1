"""Negatives of the sampled protocol, drawn for many users in one call.

A user's draws depend only on (seed or secret, user code): not on the other users of the call, on
the user's client, or on the round.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Seed, Streams, below, draw, streams
from fedrec_flower.core.types import BoolArray, IndexArray
from fedrec_flower.data.prepared import Columns

_DRAWS_PER_BATCH = 1_000_000  # limits memory for many users of a small catalogue


def draw_negatives(
    codes: NDArray[np.int32],
    seen: Sequence[Columns],
    num_items: int,
    num_negatives: int,
    seed: Seed,
) -> IndexArray:
    """Draw items that each user never interacted with, uniformly and without replacement.

    Args:
        codes: int32 (num_users,), user codes.
        seen: parts of the data; together, all interactions of these users.
        num_items: size of the catalogue.
        num_negatives: items per user, at least 1.
        seed: seed of the draws; see `core.random`.

    Returns:
        int64 (num_users, num_negatives), item codes, distinct within a row.

    Raises:
        ConfigError: if a user has too few items left; names the user.
    """
    is_seen = np.zeros((len(codes), num_items), np.bool_)
    num_unseen = np.full(len(codes), num_items)
    for part in seen:
        is_seen[part.users(), part.item] = True
        num_unseen -= np.diff(part.offsets)
    _require_enough(codes, num_unseen, num_negatives)
    stream = streams(seed, "evaluation-negatives", 0, codes.astype(np.int64))
    size = max(_DRAWS_PER_BATCH // num_items, 1)
    batches = [slice(start, start + size) for start in range(0, len(codes), size)]
    return np.concatenate(
        [_draw(stream[users], is_seen[users], num_negatives) for users in batches]
    )


def _require_enough(codes: NDArray[np.int32], num_unseen: IndexArray, num_negatives: int) -> None:
    for user in np.flatnonzero(num_unseen < num_negatives):
        raise ConfigError(
            f"user code {codes[user]} has only {num_unseen[user]} items left to rank against, "
            f"evaluation.num_negatives asks for {num_negatives}: lower it (0 for none)"
        )


def _draw(stream: Streams, is_seen: BoolArray, num_negatives: int) -> IndexArray:
    """Draw from each stream until there are enough new items; see `_lowest` for active users.

    Both ways treat all unseen items of a user equally, so every set of them has the same
    probability.
    """
    width = num_negatives * 3 // 2 + 8  # enough for users who have seen less than a quarter
    item = below(draw(stream[:, None], np.arange(width)), is_seen.shape[1])
    new = _is_first(item) & ~np.take_along_axis(is_seen, item, axis=1)
    count = new.cumsum(axis=1)
    new &= count <= num_negatives
    enough = count[:, -1] >= num_negatives
    negatives = np.empty((len(stream), num_negatives), np.int64)
    negatives[enough] = item[enough][new[enough]].reshape(-1, num_negatives)
    if not enough.all():
        negatives[~enough] = _lowest(stream[~enough], is_seen[~enough], num_negatives, first=width)
    return negatives


def _is_first(item: IndexArray) -> BoolArray:
    """Return whether each item is the first of its kind in its row, bool (num_users, width)."""
    size = item.shape[1].bit_length()  # bits of a column number
    tagged = np.sort((item << size) | np.arange(item.shape[1]), axis=1)  # by item, then by column
    # Two neighbours with the same item differ in the bits of the column only.
    user, before = np.nonzero((tagged[:, 1:] ^ tagged[:, :-1]) < (1 << size))
    is_first = np.ones(item.shape, np.bool_)
    is_first[user, tagged[user, before + 1] & ((1 << size) - 1)] = False
    return is_first


def _lowest(stream: Streams, is_seen: BoolArray, num_negatives: int, first: int) -> IndexArray:
    """Draw bits for every item, from counter `first` on; return the items with the lowest bits."""
    bits = draw(stream[:, None], first + np.arange(is_seen.shape[1])) >> np.uint64(1)
    bits[is_seen] = np.uint64(2**64 - 1)  # larger than all others, whose highest bit is 0
    return np.argpartition(bits, num_negatives - 1, axis=1)[:, :num_negatives]
