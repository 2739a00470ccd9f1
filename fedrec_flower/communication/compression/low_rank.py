"""Low-rank compression: a matrix is sent as the product of two thin matrices.

Source: Vogels et al. 2019 (PowerSGD), Algorithm 1. Each round starts from a new random matrix, as
in Halko et al. 2011, Algorithm 4.4, because a client touches different rows in each round.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.compression.base import ByParameter, RngAt
from fedrec_flower.communication.compression.encoding import Layout, Numbers, Part
from fedrec_flower.core.ranges import NonNegativeInt, PositiveInt, check_fields
from fedrec_flower.core.types import BoolArray, Float32Array, IndexArray
from fedrec_flower.data.prepared import starts


@dataclass(frozen=True, slots=True)
class LowRank(ByParameter):
    """Sends the touched rows of each parameter as two thin matrices where that is smaller.

    Attributes:
        num_items: rows of a whole table.
        rank: columns of the thin matrices, at least 1.
        power_iterations: number of power iterations, at least 0. Each brings the product closer to
            the best approximation of this rank and costs two more matrix products.
        error_feedback: whether a client adds the compression error to its next update.
    """

    formats: ClassVar[tuple[type[Any], ...]] = (np.float32,)
    num_items: int
    rank: PositiveInt
    power_iterations: NonNegativeInt
    error_feedback: bool

    def __post_init__(self) -> None:
        """Validate the rank and the number of iterations."""
        check_fields("compression", self)

    @property
    @override
    def uses_error_feedback(self) -> bool:
        return self.error_feedback

    @override
    def pack(self, matrix: Float32Array, layout: Layout, rng_at: RngAt) -> list[Part]:
        offsets = starts(self._num_values(layout))
        values = np.empty(offsets[-1], np.float32)
        for place, is_factorized in enumerate(self._is_factorized(layout).tolist()):
            client_matrix = matrix[slice(*layout.offsets[place : place + 2])]
            sent = values[slice(*offsets[place : place + 2])]
            if is_factorized:
                sent[:] = self._factors(client_matrix, rng_at(place))
            else:
                sent[:] = client_matrix.reshape(-1)
        return [Numbers(values, offsets)]

    @override
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Float32Array:
        offsets = starts(self._num_values(layout))
        matrix = np.empty((layout.offsets[-1], layout.width), np.float32)
        for place, is_factorized in enumerate(self._is_factorized(layout).tolist()):
            client_matrix = matrix[slice(*layout.offsets[place : place + 2])]
            sent = arrays[0][slice(*offsets[place : place + 2])]
            if is_factorized:
                left, right = np.split(sent.reshape(-1, self.rank), [len(client_matrix)])
                with np.errstate(invalid="ignore", over="ignore"):
                    np.matmul(left, right.T, out=client_matrix)
            else:
                client_matrix.reshape(-1)[:] = sent
        return matrix

    def _factors(self, matrix: Float32Array, rng: np.random.Generator) -> Float32Array:
        """Return both thin matrices as one flat array, the left one first.

        The left matrix is (num_rows, rank) with orthonormal columns, the right one (width, rank).
        """
        right = rng.standard_normal((matrix.shape[1], self.rank), np.float32)
        # A value that is not finite spreads over the whole matrix; the server rejects it.
        with np.errstate(invalid="ignore", over="ignore"):
            for _ in range(1 + self.power_iterations):
                left = np.linalg.qr(matrix @ right).Q
                right = matrix.T @ left
        return np.concatenate([left, right]).reshape(-1)

    def _is_factorized(self, layout: Layout) -> BoolArray:
        """Whether a client's thin matrices are smaller than its matrix, bool (num_clients,)."""
        return self._factor_sizes(layout) < np.diff(layout.entries)

    def _num_values(self, layout: Layout) -> IndexArray:
        """Numbers that each client sends, int64 (num_clients,)."""
        return np.minimum(self._factor_sizes(layout), np.diff(layout.entries))

    def _factor_sizes(self, layout: Layout) -> IndexArray:
        """Entries of both thin matrices of each client, int64 (num_clients,)."""
        return (layout.num_rows + layout.width) * self.rank
