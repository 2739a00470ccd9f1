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
from fedrec_flower.evaluation.scoring import joined

_DRAWS_PER_BATCH = 50_000  # they fit into the cache of a core


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
    # Imported here: a server that only checks the settings needs no compiler.
    from fedrec_flower.evaluation import kernels

    num_unseen = np.full(len(codes), num_items)
    for part in seen:
        num_unseen -= np.diff(part.offsets)
    _require_enough(codes, num_unseen, num_negatives)
    stream = streams(seed, "evaluation-negatives", 0, codes.astype(np.int64))
    width = num_negatives * 3 // 2 + 8  # enough for users who have seen less than a quarter
    offsets, item = joined(seen)
    negatives = np.empty((len(codes), num_negatives), np.int64)
    size, few_users = (max(_DRAWS_PER_BATCH // draws, 1) for draws in (width, num_items))
    for start in range(0, len(codes), size):
        users = slice(start, min(start + size, len(codes)))
        drawn = below(draw(stream[users, None], np.arange(width)), num_items)
        bounds = offsets[:, users.start : users.stop + 1]
        found = kernels.first_unseen(drawn, bounds, item, num_items, negatives[users])
        active = users.start + np.flatnonzero(found < num_negatives)
        for few in np.split(active, range(few_users, len(active), few_users)):
            is_seen = np.zeros((len(few), num_items), np.bool_)
            for part in (part.take(few) for part in seen):
                is_seen[part.users(), part.item] = True
            negatives[few] = _lowest(stream[few], is_seen, num_negatives, first=width)
    return negatives


def _require_enough(codes: NDArray[np.int32], num_unseen: IndexArray, num_negatives: int) -> None:
    for user in np.flatnonzero(num_unseen < num_negatives):
        raise ConfigError(
            f"user code {codes[user]} has only {num_unseen[user]} items left to rank against, "
            f"evaluation.num_negatives asks for {num_negatives}: lower it (0 for none)"
        )


def _lowest(stream: Streams, is_seen: BoolArray, num_negatives: int, first: int) -> IndexArray:
    """Draw bits for every item, from counter `first` on; return the items with the lowest bits.

    For users for whom the first draws do not suffice. Both ways treat all unseen items of a user
    equally, so every set of them has the same probability.
    """
    bits = draw(stream[:, None], first + np.arange(is_seen.shape[1])) >> np.uint64(1)
    bits[is_seen] = np.uint64(2**64 - 1)  # larger than all others, whose highest bit is 0
    return np.argpartition(bits, num_negatives - 1, axis=1)[:, :num_negatives]
