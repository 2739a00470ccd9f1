"""Top-k sparsification: the entries of largest magnitude and their positions.

Source: Aji and Heafield 2017; with error feedback Stich et al. 2018, Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from typing_extensions import override

from fedrec_flower.communication.compression.base import ByParameter, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part, Subsets
from fedrec_flower.core.ranges import check_fields
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.prepared import starts


@dataclass(frozen=True, slots=True)
class TopK(ByParameter):
    """Sends the entries of largest magnitude of each parameter; the others are decoded as zero.

    The selection is per parameter, because parameters have different learning rates. The codes of
    all touched rows are sent, so the mean of a row is over all clients that touched it, whether or
    not they send entries of this row.

    Attributes:
        num_items: rows of a whole table.
        share: share of a client's entries in touched rows that is sent, in (0, 1]; the number of
            entries is rounded up.
        error_feedback: whether a client adds the compression error to its next update.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (Subsets, np.float32)
    num_items: int
    share: Annotated[float, Field(gt=0, le=1)]
    error_feedback: bool

    def __post_init__(self) -> None:
        """Validate the share."""
        check_fields("compression", self)

    @property
    @override
    def uses_error_feedback(self) -> bool:
        return self.error_feedback

    @override
    def pack(self, matrix: Float32Array, layout: Layout, rng_at: RngAt) -> list[Part]:
        from fedrec_flower.communication.compression.kernels import select

        del rng_at
        entries = layout.entries
        sent_offsets = self._sent_offsets(layout)
        values = matrix.reshape(-1)
        positions = np.empty(sent_offsets[-1], np.int64)
        select(values, entries, sent_offsets, positions)
        sent = values[_absolute(positions, layout, sent_offsets)]
        return [Subsets(positions, sent_offsets, np.diff(entries)), Numbers(sent, sent_offsets)]

    @override
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Float32Array:
        positions, sent = arrays
        values = np.zeros(layout.entries[-1], np.float32)
        values[_absolute(positions, layout, self._sent_offsets(layout))] = sent
        return values.reshape(-1, layout.width)

    def _sent_offsets(self, layout: Layout) -> IndexArray:
        """First sent entry of each client, int64 (num_clients + 1,)."""
        return starts(np.ceil(self.share * np.diff(layout.entries)).astype(np.int64))


def _absolute(positions: IndexArray, layout: Layout, sent_offsets: IndexArray) -> IndexArray:
    """Map positions within each client's entries to positions within all clients' entries."""
    return positions + np.repeat(layout.entries[:-1], np.diff(sent_offsets))
