"""Nothing is lost: the values of the touched rows, and which rows these are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import ByParameter, Matrix, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part


@dataclass(frozen=True, slots=True)
class SparseRows(ByParameter):
    """Touched rows as they are, without what the server can tell by itself.

    Attributes:
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.float32,)
    num_items: int

    def pack(self, matrix: Matrix, layout: Layout, rng_at: RngAt) -> list[Part]:
        """See `ByParameter.pack`."""
        del rng_at
        return [Numbers(matrix.reshape(-1), layout.entries)]

    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Matrix:
        """See `ByParameter.unpack`."""
        return arrays[0].reshape(-1, layout.width)
