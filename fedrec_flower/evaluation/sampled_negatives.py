"""Negatives of the sampled protocol: drawn for many users at once, each user's by itself.

A user's draws hang on (seed or secret, user code) and on nothing else: not on who is drawn for
beside it, on its client, or on the round.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Seed, Streams, below, draw, streams
from fedrec_flower.data.prepared import Columns

_AT_ONCE = 1_000_000  # draws; bounds memory where a small catalogue puts many users in a batch


def draw_negatives(
    codes: NDArray[np.int32],
    known: Sequence[Columns],
    num_items: int,
    num_negatives: int,
    seed: Seed,
) -> NDArray[np.int64]:
    """Draw items each user never interacted with, without replacement, uniformly.

    Args:
        codes: int32 (num_users,), user codes.
        known: parts of the data; together, all that these users ever interacted with.
        num_items: size of the catalogue.
        num_negatives: items per user, at least 1.
        seed: what draws follow from; see `seeding`.

    Returns:
        int64 (num_users, num_negatives), distinct within a row.

    Raises:
        ConfigError: if a user has too few items left; names the user.
    """
    met, left = np.zeros((len(codes), num_items), np.bool_), np.full(len(codes), num_items)
    for part in known:
        met[part.users(), part.item] = True
        left -= np.diff(part.offsets)
    _require_enough(codes, left, num_negatives)
    stream = streams(seed, "evaluation-negatives", 0, codes.astype(np.int64))
    size = max(_AT_ONCE // num_items, 1)
    some = [slice(start, start + size) for start in range(0, len(codes), size)]
    return np.concatenate([_draw(stream[users], met[users], num_negatives) for users in some])


def _require_enough(codes: NDArray[np.int32], left: NDArray[np.int64], num_negatives: int) -> None:
    for user in np.flatnonzero(left < num_negatives):
        raise ConfigError(
            f"user code {codes[user]} has only {left[user]} items left to rank against, "
            f"evaluation.num_negatives asks for {num_negatives}: lower it (0 for none)"
        )


def _draw(stream: Streams, met: NDArray[np.bool_], num_negatives: int) -> NDArray[np.int64]:
    """Take each stream's first new items; a user who knows too much for that draws otherwise.

    Both ways treat all items that a user has not met alike, so every set of them is as likely.
    """
    width = num_negatives * 3 // 2 + 8  # suffices where a user knows less than a quarter
    item = below(draw(stream[:, None], np.arange(width)), met.shape[1])
    new = _is_first(item) & ~np.take_along_axis(met, item, axis=1)
    count = new.cumsum(axis=1)
    new &= count <= num_negatives
    enough = count[:, -1] >= num_negatives
    negatives = np.empty((len(stream), num_negatives), np.int64)
    negatives[enough] = item[enough][new[enough]].reshape(-1, num_negatives)
    if not enough.all():
        negatives[~enough] = _lowest(stream[~enough], met[~enough], num_negatives, first=width)
    return negatives


def _is_first(item: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each item is new in its row, bool like `item` (num_users, width)."""
    size = item.shape[1].bit_length()  # bits of a place
    tagged = np.sort((item << size) | np.arange(item.shape[1]), axis=1)  # by item, then by place
    user, before = np.nonzero((tagged[:, 1:] ^ tagged[:, :-1]) < (1 << size))  # the same item
    is_first = np.ones(item.shape, np.bool_)
    is_first[user, tagged[user, before + 1] & ((1 << size) - 1)] = False
    return is_first


def _lowest(
    stream: Streams, met: NDArray[np.bool_], num_negatives: int, first: int
) -> NDArray[np.int64]:
    """Give every item random bits, from counter `first` on; take the items of the lowest bits."""
    bits = draw(stream[:, None], first + np.arange(met.shape[1])) >> np.uint64(1)
    bits[met] = np.uint64(2**64 - 1)  # above all others, which have lost their highest bit
    return np.argpartition(bits, num_negatives - 1, axis=1)[:, :num_negatives]
