"""The largest entries of an update, and where they stand.

Source: Aji and Heafield 2017; with error feedback Stich et al. 2018, Algorithm 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import ByParameter, Matrix, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part, Subsets
from fedrec_flower.core.errors import require
from fedrec_flower.data.prepared import starts


@dataclass(frozen=True, slots=True)
class TopK(ByParameter):
    """The entries of largest magnitude of each parameter; the server reads zero for the others.

    Of each parameter by itself, because parameters learn at rates of their own. The touched rows
    are all named, so a row's mean is over the clients that touched it, whatever of it they send.

    Attributes:
        num_items: rows of a whole table.
        share: of a client's entries in touched rows that are sent, in (0, 1]; rounded up.
        error_feedback: whether a client adds what it did not send to its next update.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (Subsets, np.float32)
    num_items: int
    share: float
    error_feedback: bool

    def __post_init__(self) -> None:
        """Refuse what is no share."""
        require(0 < self.share <= 1, f"compression.share must be in (0, 1]: {self.share}")

    @property
    def remembers(self) -> bool:
        """See `Compression.remembers`."""
        return self.error_feedback

    def pack(self, matrix: Matrix, layout: Layout, rng_at: RngAt) -> list[Part]:
        """See `ByParameter.pack`."""
        from fedrec_flower.communication.compression.kernels import select

        del rng_at
        entries, kept = layout.entries, self._kept(layout)
        values, positions = matrix.reshape(-1), np.empty(kept[-1], np.int64)
        select(values, entries, kept, positions)
        chosen = values[_from_first(positions, layout, kept)]
        return [Subsets(positions, kept, np.diff(entries)), Numbers(chosen, kept)]

    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Matrix:
        """See `ByParameter.unpack`."""
        positions, chosen = arrays
        values = np.zeros(layout.entries[-1], np.float32)
        values[_from_first(positions, layout, self._kept(layout))] = chosen
        return values.reshape(-1, layout.width)

    def _kept(self, layout: Layout) -> NDArray[np.int64]:
        """Where each client's chosen entries begin: int64 (num_clients + 1,)."""
        return starts(np.ceil(self.share * np.diff(layout.entries)).astype(np.int64))


def _from_first(
    positions: NDArray[np.int64], layout: Layout, kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Positions counted from the first client's first entry instead of each one's own."""
    return positions + np.repeat(layout.entries[:-1], np.diff(kept))
