"""A matrix as the product of two thin ones.

Source: Vogels et al. 2019 (PowerSGD), Algorithm 1; each round from a fresh random start, because a
client touches other rows every round, as in Halko et al. 2011, Algorithm 4.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import ByParameter, Matrix, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part
from fedrec_flower.core.errors import require
from fedrec_flower.data.prepared import starts


@dataclass(frozen=True, slots=True)
class LowRank(ByParameter):
    """Each client's touched rows of a parameter as a matrix of low rank, where that is smaller.

    Attributes:
        num_items: rows of a whole table.
        rank: columns of the thin matrices, at least 1.
        power_iterations: each brings the product closer to the best of its rank, at the cost of
            two more products; at least 0.
        error_feedback: whether a client adds what it did not send to its next update.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.float32,)
    num_items: int
    rank: int
    power_iterations: int
    error_feedback: bool

    def __post_init__(self) -> None:
        """Refuse what is no rank and no number of iterations."""
        require(self.rank >= 1, f"compression.rank must be at least 1: {self.rank}")
        require(
            self.power_iterations >= 0,
            f"compression.power_iterations must not be negative: {self.power_iterations}",
        )

    @property
    def remembers(self) -> bool:
        """See `Compression.remembers`."""
        return self.error_feedback

    def pack(self, matrix: Matrix, layout: Layout, rng_at: RngAt) -> list[Part]:
        """See `ByParameter.pack`."""
        offsets = starts(self._sizes(layout))
        values = np.empty(offsets[-1], np.float32)
        for place, thin in enumerate(self._is_thin(layout).tolist()):
            own = matrix[slice(*layout.offsets[place : place + 2])]
            sent = values[slice(*offsets[place : place + 2])]
            sent[:] = self._factors(own, rng_at(place)) if thin else own.reshape(-1)
        return [Numbers(values, offsets)]

    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Matrix:
        """See `ByParameter.unpack`."""
        offsets = starts(self._sizes(layout))
        matrix = np.empty((layout.offsets[-1], layout.width), np.float32)
        for place, thin in enumerate(self._is_thin(layout).tolist()):
            own = matrix[slice(*layout.offsets[place : place + 2])]
            sent = arrays[0][slice(*offsets[place : place + 2])]
            if thin:
                left, right = np.split(sent.reshape(-1, self.rank), [len(own)])
                with np.errstate(invalid="ignore", over="ignore"):
                    np.matmul(left, right.T, out=own)
            else:
                own.reshape(-1)[:] = sent
        return matrix

    def _factors(self, matrix: Matrix, rng: np.random.Generator) -> Matrix:
        """Both thin matrices, one below the other, flat; the left one has orthonormal columns."""
        right = rng.standard_normal((matrix.shape[1], self.rank), np.float32)
        # What is not finite spreads over the whole matrix, for the server to see.
        with np.errstate(invalid="ignore", over="ignore"):
            for _ in range(1 + self.power_iterations):
                left = np.linalg.qr(matrix @ right).Q
                right = matrix.T @ left
        return np.concatenate([left, right]).reshape(-1)

    def _is_thin(self, layout: Layout) -> NDArray[np.bool_]:
        """Whose thin matrices are smaller than the matrix: bool (num_clients,)."""
        return self._thin_sizes(layout) < np.diff(layout.entries)

    def _sizes(self, layout: Layout) -> NDArray[np.int64]:
        """How many numbers each sends: int64 (num_clients,)."""
        return np.minimum(self._thin_sizes(layout), np.diff(layout.entries))

    def _thin_sizes(self, layout: Layout) -> NDArray[np.int64]:
        return (layout.num_rows + layout.width) * self.rank
