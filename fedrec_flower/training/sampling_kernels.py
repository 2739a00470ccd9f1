"""Compiled parts of sampling: draws of many streams, known items, shuffles."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.random import GOLDEN, splitmix64_finalize
from fedrec_flower.core.types import IndexArray

Int32Array = NDArray[np.int32]

_finalize = compiled(splitmix64_finalize)


@compiled
def draw_runs(
    start: NDArray[np.uint64], offsets: IndexArray, first: np.uint64
) -> NDArray[np.uint64]:
    """Draws `first`, `first + 1`, ... of each stream under a seed; see `core.random.draw`.

    Args:
        start: uint64 (num_streams,), initial state of each stream.
        offsets: int64 (num_streams + 1,), where each stream's draws begin.
        first: counter of each stream's first draw.

    Returns:
        uint64 (offsets[-1],).
    """
    bits = np.empty(offsets[-1], np.uint64)
    for stream in range(len(start)):
        for place in range(offsets[stream], offsets[stream + 1]):
            counter = first + np.uint64(place - offsets[stream])
            bits[place] = _finalize(start[stream] + counter * GOLDEN)
    return bits


@compiled
def draw_items(
    bits: NDArray[np.uint64],
    user: IndexArray,
    repeats: int,
    known_offsets: IndexArray,
    known_item: IndexArray,
    num_items: int,
) -> tuple[IndexArray, IndexArray]:
    """Map draws to items, and find those that their users know.

    Args:
        bits: uint64 (n,), random bits.
        user: int64 (n / repeats,), ascending; each stands for `repeats` draws.
        repeats: number of consecutive draws of each entry of `user`.
        known_offsets: int64 (num_users + 1,), where each user's known items begin.
        known_item: int64 (m,), item codes.
        num_items: size of the catalogue.

    Returns:
        int64 (n,), item codes, as by `core.random.below`; and int64, the places of known items.
    """
    item, known, num_known = np.empty(len(bits), np.int64), np.empty(len(bits), np.int64), 0
    owner = np.full(num_items, -1, np.int32)  # the user that marked the item last
    last = np.int32(-1)
    for entry in range(len(user)):
        u = np.int32(user[entry])
        if u != last:
            last = u
            for place in range(known_offsets[u], known_offsets[u + 1]):
                owner[known_item[place]] = u
        for n in range(entry * repeats, (entry + 1) * repeats):
            top = bits[n] >> np.uint64(32)
            i = (top * np.uint64(num_items)) >> np.uint64(32)
            item[n] = i
            known[num_known] = n
            num_known += owner[i] == u
    return item, known[:num_known].copy()


@compiled
def shuffle(bits: NDArray[np.uint64], offsets: IndexArray, smallest: int) -> Int32Array:
    """A uniform permutation within each segment; smaller segments stay as they are.

    Source: Fisher and Yates, in the form of Knuth, "The Art of Computer Programming" 2, 3.4.2,
    algorithm P.

    Args:
        bits: uint64 (n,), random bits for each place.
        offsets: int64 (num_segments + 1,), where each segment begins.
        smallest: number of places from which on a segment is shuffled.

    Returns:
        int32 (n,): the place in its segment from which each element comes.
    """
    order = np.empty(len(bits), np.int32)
    for segment in range(len(offsets) - 1):
        first, size = offsets[segment], offsets[segment + 1] - offsets[segment]
        for place in range(size):
            order[first + place] = place
        if size < smallest:
            continue
        for place in range(size - 1, 0, -1):
            top = bits[first + place] >> np.uint64(32)
            other = np.int64((top * np.uint64(place + 1)) >> np.uint64(32))
            swapped = order[first + place]
            order[first + place] = order[first + other]
            order[first + other] = swapped
    return order
