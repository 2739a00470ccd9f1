"""Compiled arithmetic of the compressions that look at every entry of every update.

Magnitudes are compared as integers: without its sign bit, a float32 orders as its bits do, with
infinity and "not a number" above all else.
"""

from typing import TYPE_CHECKING, cast

import numba
import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.random import scatter

if TYPE_CHECKING:
    from collections.abc import Callable

Floats = NDArray[np.float32]
Index = NDArray[np.int64]

_MAGNITUDE = np.uint32(0x7FFFFFFF)  # all but the sign
_MANTISSA = np.uint32(0x7FFFFF)
_MANTISSA_OF_127 = np.uint32(0x7E0000)  # of 127 / 64
_DIGITS = (11, 10, 10)  # a magnitude's 31 bits, from the highest
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

NOT_FINITE = 255  # the exponent of a block that has no step
# Steps by their exponent, and their inverses: powers of two, so that dividing loses nothing.
STEPS = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan))
_PER_STEP = np.ldexp(np.float32(1), 127 - np.arange(256)).astype(np.float32)


_scatter = cast("Callable[[np.uint64], np.uint64]", numba.njit(scatter))


@compiled
def quantize(
    values: Floats,
    offsets: Index,
    keys: NDArray[np.uint64],
    firsts: Index,
    found: NDArray[np.uint8],
    codes: NDArray[np.int8],
) -> None:
    """Round every entry to a whole number of its block's steps, up or down by chance.

    Args:
        values: float32 (n,), entries.
        offsets: int64 (num_blocks + 1,), where each block begins.
        keys: uint64 (num_blocks,), the random stream of the block's client.
        firsts: int64 (num_blocks,), the entry that the block's client begins with.
        found: uint8 (num_blocks,), filled with the exponents of the steps, see `STEPS`.
        codes: int8 (n,), filled.
    """
    for block in range(len(found)):
        # Slices, because the compiler makes wide loops of them.
        entries, into = slice(offsets[block], offsets[block + 1]), offsets[block] - firsts[block]
        own, rounded, key = values[entries], codes[entries], keys[block]
        found[block] = exponent = _exponent(own.view(np.uint32))
        rate = _PER_STEP[exponent]
        for place in range(len(own)):
            exact = own[place] * rate
            whole = np.floor(exact)
            # As `seeding.draw`: SplitMix64 entered at the counter.
            random = _scatter(key + np.uint64(into + place) * _GOLDEN) >> np.uint64(40)
            up = np.float32(random) * np.float32(2.0**-24) < exact - whole
            rounded[place] = np.int8(whole + np.float32(up))


@compiled
def _exponent(bits: NDArray[np.uint32]) -> int:
    """The exponent of the least step of which 127 reach the largest entry."""
    largest = np.uint32(0)
    for place in range(len(bits)):
        largest = max(largest, bits[place] & _MAGNITUDE)
    exponent = np.int64(largest >> np.uint32(23))
    if exponent == NOT_FINITE:
        return NOT_FINITE
    # 127 steps of 2**s reach 127 / 64 * 2**(s + 6).
    exponent += np.int64((largest & _MANTISSA) > _MANTISSA_OF_127) - 6
    return max(int(exponent), 1)  # below, a step would be no normal number


@compiled
def select(values: Floats, offsets: Index, kept_offsets: Index, positions: Index) -> None:
    """Where the largest magnitudes of each stretch lie; of equal ones the first.

    Args:
        values: float32 (n,), entries.
        offsets: int64 (num_stretches + 1,), where each stretch begins.
        kept_offsets: int64 (num_stretches + 1,), where its positions begin; no more than entries.
        positions: int64 (kept_offsets[-1],), filled: counted from the stretch's first entry,
            ascending.
    """
    histogram = np.zeros(1 << max(_DIGITS), np.int64)
    for stretch in range(len(offsets) - 1):
        bits = values[offsets[stretch] : offsets[stretch + 1]].view(np.uint32)
        kept = positions[kept_offsets[stretch] : kept_offsets[stretch + 1]]
        threshold, ties = _threshold(bits & _MAGNITUDE, len(kept), histogram)
        found = 0
        for place in range(len(bits)):
            magnitude = bits[place] & _MAGNITUDE
            if magnitude > threshold or (magnitude == threshold and ties > 0):
                ties -= magnitude == threshold
                kept[found] = place
                found += 1


@compiled
def _threshold(
    candidates: NDArray[np.uint32], count: int, histogram: Index
) -> tuple[np.uint32, int]:
    """The magnitude of rank `count`, and how many that equal it are among the first `count`.

    Radix selection: of the candidates, overwritten, those stay whose next digit is that of rank
    `count`.
    """
    threshold, missing, left, low = np.uint32(0), count, len(candidates), 31
    for width in _DIGITS:
        low -= width
        shift, digit = np.uint32(low), np.uint32((1 << width) - 1)
        mask = digit
        histogram[:] = 0
        for place in range(left):
            histogram[(candidates[place] >> shift) & mask] += 1
        while histogram[digit] < missing:
            missing -= histogram[digit]
            digit -= np.uint32(1)
        staying = 0
        for place in range(left):
            candidate = candidates[place]
            candidates[staying] = candidate
            staying += (candidate >> shift) & mask == digit
        left = staying
        threshold |= digit << shift
    return threshold, missing
