"""Quantization to int8: one byte per entry, stochastic rounding, hence unbiased.

Source: Alistarh et al. 2017 (QSGD), section 3, with the largest magnitude of a row instead of its
norm. Steps are powers of two, one byte each, as in Rouhani et al. 2023 (Microscaling).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.compression.base import ByParameter, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part
from fedrec_flower.core.types import Float32Array, IndexArray

_MIN_ROW_ENTRIES = 8  # rows with fewer entries have no step of their own


@dataclass(frozen=True, slots=True)
class Int8(ByParameter):
    """Rounds each entry to a multiple of its row's step.

    The step is the least power of two such that 127 steps reach the row's largest magnitude. Rows
    of fewer than eight entries share one step per client and parameter. The decoded value equals
    the sent value in expectation, so no error feedback is needed. A row with a value that is not
    finite is decoded as NaN, which the server rejects.

    Attributes:
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.uint8, np.int8)  # steps' exponents, multiples
    num_items: int

    @override
    def pack(self, matrix: Float32Array, layout: Layout, rng_at: RngAt) -> list[Part]:
        from fedrec_flower.communication.compression.kernels import quantize

        block_offsets = _block_offsets(layout)
        client_of_block = np.repeat(np.arange(len(layout)), np.diff(block_offsets))
        keys = np.array(
            [rng_at(place).integers(2**64, dtype=np.uint64) for place in range(len(layout))],
            np.uint64,
        )
        exponents = np.empty(block_offsets[-1], np.uint8)
        codes = np.empty(matrix.size, np.int8)
        entry_offsets = _entry_offsets(layout)
        quantize(
            matrix.reshape(-1),
            entry_offsets,
            keys[client_of_block],
            entry_offsets[block_offsets[client_of_block]],
            exponents,
            codes,
        )
        return [Numbers(exponents, block_offsets), Numbers(codes, layout.entries)]

    @override
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Float32Array:
        from fedrec_flower.communication.compression.kernels import STEPS

        exponents, codes = arrays
        steps = STEPS[exponents]
        if layout.width < _MIN_ROW_ENTRIES:
            steps = np.repeat(steps, layout.num_rows)
        # A product beyond the float32 range becomes infinite, which the server rejects.
        with np.errstate(over="ignore"):
            matrix: Float32Array = codes.reshape(-1, layout.width) * steps[:, None]
        return matrix


def _block_offsets(layout: Layout) -> IndexArray:
    """First block of each client, int64 (num_clients + 1,). The entries of a block share a step."""
    if layout.width >= _MIN_ROW_ENTRIES:
        return layout.offsets
    return np.arange(len(layout) + 1)


def _entry_offsets(layout: Layout) -> IndexArray:
    """First entry of each block, int64 (num_blocks + 1,)."""
    if layout.width < _MIN_ROW_ENTRIES:
        return layout.entries
    return np.arange(layout.offsets[-1] + 1) * layout.width
