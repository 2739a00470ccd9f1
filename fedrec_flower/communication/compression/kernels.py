"""Compiled kernels of the compressions that read every entry of every update.

Magnitudes are compared as integers: without its sign bit, a float32 has the same order as its bit
pattern, with infinity and NaN above all finite values.
"""

from typing import TYPE_CHECKING, cast

import numba
import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.random import splitmix64_finalize
from fedrec_flower.core.types import Float32Array, IndexArray

if TYPE_CHECKING:
    from collections.abc import Callable


_MAGNITUDE_MASK = np.uint32(0x7FFFFFFF)  # all bits except the sign
_MANTISSA_MASK = np.uint32(0x7FFFFF)
_MANTISSA_OF_127 = np.uint32(0x7E0000)  # of 127 / 64
_DIGIT_BITS = (11, 10, 10)  # the 31 bits of a magnitude, from the highest
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

NOT_FINITE = 255  # the exponent of a block with a value that is not finite; it has no step
# Steps by their exponent, and their inverses. They are powers of two, so division is exact.
STEPS = np.append(np.ldexp(np.float32(1), np.arange(255) - 127), np.float32(np.nan))
_PER_STEP = np.ldexp(np.float32(1), 127 - np.arange(256)).astype(np.float32)


_finalize = cast("Callable[[np.uint64], np.uint64]", numba.njit(splitmix64_finalize))


@compiled
def quantize(
    values: Float32Array,
    offsets: IndexArray,
    keys: NDArray[np.uint64],
    firsts: IndexArray,
    exponents: NDArray[np.uint8],
    codes: NDArray[np.int8],
) -> None:
    """Round every entry to a multiple of its block's step; up or down at random, unbiased.

    Args:
        values: float32 (n,), entries.
        offsets: int64 (num_blocks + 1,), first entry of each block.
        keys: uint64 (num_blocks,), the random stream of the block's client.
        firsts: int64 (num_blocks,), first entry of the block's client.
        exponents: uint8 (num_blocks,), output: exponents of the steps (indices into `STEPS`).
        codes: int8 (n,), output: multiples of the steps.
    """
    for block in range(len(exponents)):
        # Slices, because the compiler vectorizes loops over them.
        entries = slice(offsets[block], offsets[block + 1])
        counter = offsets[block] - firsts[block]
        block_values = values[entries]
        block_codes = codes[entries]
        key = keys[block]
        exponents[block] = exponent = _exponent(block_values.view(np.uint32))
        rate = _PER_STEP[exponent]
        for place in range(len(block_values)):
            exact = block_values[place] * rate
            whole = np.floor(exact)
            # As `core.random.draw`: SplitMix64 at a given counter.
            random = _finalize(key + np.uint64(counter + place) * _GOLDEN) >> np.uint64(40)
            up = np.float32(random) * np.float32(2.0**-24) < exact - whole
            block_codes[place] = np.int8(whole + np.float32(up))


@compiled
def _exponent(bits: NDArray[np.uint32]) -> int:
    """Return the exponent of the least step such that 127 steps reach the largest magnitude."""
    largest = np.uint32(0)
    for place in range(len(bits)):
        largest = max(largest, bits[place] & _MAGNITUDE_MASK)
    exponent = np.int64(largest >> np.uint32(23))
    if exponent == NOT_FINITE:
        return NOT_FINITE
    # 127 steps of 2**s reach 127 / 64 * 2**(s + 6).
    exponent += np.int64((largest & _MANTISSA_MASK) > _MANTISSA_OF_127) - 6
    return max(int(exponent), 1)  # a smaller step would be a subnormal number


@compiled
def select(
    values: Float32Array, offsets: IndexArray, selected_offsets: IndexArray, positions: IndexArray
) -> None:
    """Find the entries of largest magnitude in each segment; ties go to the first entries.

    Args:
        values: float32 (n,), entries.
        offsets: int64 (num_segments + 1,), first entry of each segment.
        selected_offsets: int64 (num_segments + 1,), first selected position of each segment; a
            segment has no more positions than entries.
        positions: int64 (selected_offsets[-1],), output: positions within the segment, ascending.
    """
    histogram = np.zeros(1 << max(_DIGIT_BITS), np.int64)
    for segment in range(len(offsets) - 1):
        bits = values[offsets[segment] : offsets[segment + 1]].view(np.uint32)
        selected = positions[selected_offsets[segment] : selected_offsets[segment + 1]]
        threshold, ties = _threshold(bits & _MAGNITUDE_MASK, len(selected), histogram)
        count = 0
        for place in range(len(bits)):
            magnitude = bits[place] & _MAGNITUDE_MASK
            if magnitude > threshold or (magnitude == threshold and ties > 0):
                ties -= magnitude == threshold
                selected[count] = place
                count += 1


@compiled
def _threshold(
    candidates: NDArray[np.uint32], count: int, histogram: IndexArray
) -> tuple[np.uint32, int]:
    """Return the magnitude of rank `count`, and how many of the first `count` are equal to it.

    Radix selection: at each digit, only the candidates with the digit of rank `count` remain.

    Args:
        candidates: uint32 (n,), magnitudes; overwritten.
        count: rank, from 1 for the largest; 0 to select no entry.
        histogram: int64 (2^11,), work space.
    """
    threshold = np.uint32(0)
    missing = count
    num_left = len(candidates)
    low = 31
    for width in _DIGIT_BITS:
        low -= width
        shift = np.uint32(low)
        digit = np.uint32((1 << width) - 1)
        mask = digit
        histogram[:] = 0
        for place in range(num_left):
            histogram[(candidates[place] >> shift) & mask] += 1
        while histogram[digit] < missing:
            missing -= histogram[digit]
            digit -= np.uint32(1)
        num_remaining = 0
        for place in range(num_left):
            candidate = candidates[place]
            candidates[num_remaining] = candidate
            num_remaining += (candidate >> shift) & mask == digit
        num_left = num_remaining
        threshold |= digit << shift
    return threshold, missing
