"""A byte an entry: whole numbers of steps, rounded up or down by chance so that none is biased.

Source: Alistarh et al. 2017 (QSGD), section 3, with the largest magnitude of a row in the place of
its norm; steps that are powers of two, one byte each, as in Rouhani et al. 2023 (Microscaling).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import ByParameter, Matrix, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part

_WIDE = 8  # entries that make a row worth a step of its own


@dataclass(frozen=True, slots=True)
class Int8(ByParameter):
    """Each row has a step: the least power of two of which 127 reach the row's largest entry.

    Rows of fewer than eight entries share the step of their client's whole parameter. The expected
    value of what arrives is what was sent, so nothing need be remembered. A row that holds what is
    not finite arrives as "not a number", for the server to see.

    Attributes:
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.uint8, np.int8)  # steps' exponents, multiples
    num_items: int

    def pack(self, matrix: Matrix, layout: Layout, rng_at: RngAt) -> list[Part]:
        """See `ByParameter.pack`."""
        from fedrec_flower.communication.compression.kernels import quantize

        blocks = _blocks(layout)
        owners = np.repeat(np.arange(len(layout)), np.diff(blocks))
        keys = np.array(
            [rng_at(place).integers(2**64, dtype=np.uint64) for place in range(len(layout))],
            np.uint64,
        )
        exponents, codes = np.empty(blocks[-1], np.uint8), np.empty(matrix.size, np.int8)
        begin = _entries(layout)
        quantize(matrix.reshape(-1), begin, keys[owners], begin[blocks[owners]], exponents, codes)
        return [Numbers(exponents, blocks), Numbers(codes, layout.entries)]

    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Matrix:
        """See `ByParameter.unpack`."""
        from fedrec_flower.communication.compression.kernels import STEPS

        exponents, codes = arrays
        steps = STEPS[exponents]
        if layout.width < _WIDE:
            steps = np.repeat(steps, layout.num_rows)
        # Beyond the last float32 lies infinity, for the server to see.
        with np.errstate(over="ignore"):
            matrix: Matrix = codes.reshape(-1, layout.width) * steps[:, None]
        return matrix


def _blocks(layout: Layout) -> NDArray[np.int64]:
    """Where each client's blocks, which have a step each, begin: int64 (num_clients + 1,)."""
    return layout.offsets if layout.width >= _WIDE else np.arange(len(layout) + 1)


def _entries(layout: Layout) -> NDArray[np.int64]:
    """Where each block's entries begin: int64 (num_blocks + 1,)."""
    if layout.width < _WIDE:
        return layout.entries
    return np.arange(layout.offsets[-1] + 1) * layout.width
