"""Lossless compression: the values of the touched rows and the codes of these rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.compression.base import ByParameter, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part
from fedrec_flower.core.types import Float32Array


@dataclass(frozen=True, slots=True)
class SparseRows(ByParameter):
    """Sends the touched rows unchanged, without the metadata that the server can derive.

    Attributes:
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.float32,)
    num_items: int

    @override
    def pack(self, matrix: Float32Array, layout: Layout, rng_at: RngAt) -> list[Part]:
        del rng_at
        return [Numbers(matrix.reshape(-1), layout.entries)]

    @override
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Float32Array:
        return arrays[0].reshape(-1, layout.width)
