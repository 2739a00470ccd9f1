"""Quantization of sums to integers whose total over a cohort cannot wrap.

A node sends one vector of integers. Values that reveal something about the node are inside the
vector, and so are masked: weights, losses, counts, and the rows that its clients touched. For the
same reason tables are sent as a whole: leaving out untouched rows would reveal the touched ones.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.types import Float64Array, Shapes
from fedrec_flower.core.updates import UpdateSum

Integers = NDArray[Any]  # uint32 or uint64

_LOSS_RANGE = 64.0  # largest mean training loss; a larger one is clipped and counted
# Ranges of the scalars at the end of the vector: weight, loss, replied, clipped.
_SCALAR_RANGES = (1.0, _LOSS_RANGE, 1.0, 1.0)


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Fixed-point numbers in two's complement: sums modulo 2^`modulus_bits` are exact sums.

    A value of an update of weight 1 lies in [-range, range] and is sent as a number of steps of
    range / 2^(value_bits - 1); a weighted value is larger by its weight. `SecAgg` ensures that
    weight_total * 2^(value_bits - 1) < 2^(modulus_bits - 1), and values are clipped before they
    are cast, so no sum over the cohort can exceed the integers' range.

    Attributes:
        value_bits: bits of a value of weight 1.
        modulus_bits: bits of a value on the wire.
        rounding: "stochastic" (unbiased; exact multiples of the step are unchanged) or "nearest".
    """

    value_bits: int
    modulus_bits: Literal[32, 64]
    rounding: Literal["stochastic", "nearest"]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the unsigned integers on the wire."""
        return np.dtype(f"u{self.modulus_bits // 8}")

    @property
    def steps(self) -> int:
        """Number of steps from zero to the end of a range."""
        return 1 << (self.value_bits - 1)

    def encode(
        self,
        values: Float64Array,
        value_range: float,
        weight: float,
        rng: np.random.Generator | None,
    ) -> tuple[Integers, int]:
        """Round and clip values.

        Args:
            values: float64 (n,), weighted sums.
            value_range: largest magnitude of a value of weight 1; above 0.
            weight: weight of the sum.
            rng: for stochastic rounding; None always rounds to the nearest.

        Returns:
            Unsigned integers (n,), and the number of clipped values.

        Raises:
            TrainingError: if a value is not finite.
        """
        scaled = values * (self.steps / value_range)
        if not np.isfinite(scaled).all():
            raise TrainingError(
                "a sum to be masked is not finite: lower the learning rates, or set "
                "secure_aggregation=none to see which client's it is"
            )
        if rng is None or self.rounding == "nearest":
            rounded = np.rint(scaled)
        else:
            rounded = np.floor(scaled + rng.random(len(scaled)))
        limit = np.floor(weight * self.steps)
        num_clipped = int(np.count_nonzero(np.abs(rounded) > limit))
        return rounded.clip(-limit, limit).astype(np.int64).astype(self.dtype), num_clipped

    def decode(self, integers: Integers, value_range: float) -> Float64Array:
        """Return the values of unsigned integers (n,), or of sums of them: float64 (n,)."""
        signed = integers.view(f"i{self.modulus_bits // 8}")
        return signed.astype(np.float64) * (value_range / self.steps)


@dataclass(frozen=True, slots=True)
class CohortSum:
    """Sum over clients of everything that they send.

    Attributes:
        total: sum of their updates or statistics.
        loss: sum of their mean training losses, each times the client's weight.
        replied: number of clients.
        clipped: number of values that were clipped.
    """

    total: UpdateSum
    loss: float
    replied: int
    clipped: int


def vector_length(shapes: Shapes, num_rows: int) -> int:
    """Return the length of the vector for tensors of these shapes and `num_rows` row weights."""
    return sum(prod(shape) for shape in shapes.values()) + num_rows + len(_SCALAR_RANGES)


def encode_sum(
    cohort_sum: CohortSum,
    quantizer: Quantizer,
    clip_range: float,
    max_weight: float,
    rng: np.random.Generator,
) -> Integers:
    """Encode a sum as one vector: tensors by name, row weights, weight, loss, replied, clipped.

    Args:
        cohort_sum: a node's sum; its `clipped` is ignored, because clipping is counted here.
        quantizer: converts values to integers.
        clip_range: largest magnitude of a value of an update.
        max_weight: largest possible weight of the clients asked, at least their number; larger
            values are clipped.
        rng: for stochastic rounding of tensors; all other values are rounded to the nearest.

    Returns:
        Unsigned integers (`vector_length`,).
    """
    total = cohort_sum.total
    weight = min(total.weight, max_weight)  # otherwise a sum could wrap
    num_clipped = 0
    parts = list[Integers]()
    for name in sorted(total.tensors):
        flat = total.tensors[name].astype(np.float64).reshape(-1)
        part, clipped_here = quantizer.encode(flat, clip_range, weight, rng)
        parts.append(part)
        num_clipped += clipped_here
    scalars = (total.weight, cohort_sum.loss, float(cohort_sum.replied))
    arrays = [(total.row_weight, 1.0)]
    arrays += [
        (np.array([scalar]), value_range)
        for scalar, value_range in zip(scalars, _SCALAR_RANGES[:-1], strict=True)
    ]
    for values, value_range in arrays:
        part, clipped_here = quantizer.encode(values, value_range, max_weight, None)
        parts.append(part)
        num_clipped += clipped_here
    clipped_values = np.array([float(num_clipped)])
    parts.append(quantizer.encode(clipped_values, _SCALAR_RANGES[-1], max_weight, None)[0])
    return np.concatenate(parts)


def decode_sum(
    vector: Integers, quantizer: Quantizer, clip_range: float, shapes: Shapes, num_rows: int
) -> CohortSum:
    """Decode the sum of vectors from `encode_sum`.

    Args:
        vector: unsigned integers (`vector_length`,).
        quantizer: the quantizer of `encode_sum`.
        clip_range: the range of `encode_sum`.
        shapes: shapes of the tensors by name.
        num_rows: number of row weights.
    """
    tensors = {}
    start = 0
    for name in sorted(shapes):
        stop = start + prod(shapes[name])
        flat = quantizer.decode(vector[start:stop], clip_range)
        tensors[name] = flat.reshape(shapes[name])
        start = stop
    row_weight = quantizer.decode(vector[start : start + num_rows], 1.0)
    weight, loss, replied, clipped = (
        float(quantizer.decode(vector[place : place + 1], value_range)[0])
        for place, value_range in enumerate(_SCALAR_RANGES, start + num_rows)
    )
    total = UpdateSum(tensors, weight, row_weight)
    return CohortSum(total, loss, round(replied), round(clipped))
