"""Numbers as integers whose sum over a cohort cannot wrap.

A node's sums as one vector of integers, and the vector of the cohort as sums again.

Whatever would tell of a node travels inside: weights, losses, counts, and which rows its clients
touched. So tables are whole: leaving out untouched rows would tell the others.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.updates import UpdateSum


@dataclass(frozen=True, slots=True)
class Quantizer:
    """Fixed-point numbers in two's complement: sums modulo 2^`modulus_bits` are sums.

    A value that belongs to an update of weight 1 lies in [-range, range] and is told in steps of
    range / 2^(value_bits - 1); weighted, it is a weight times larger. `SecAgg` sees to it that
    weight_total * 2^(value_bits - 1) < 2^(modulus_bits - 1), and values are clipped before they
    are cast, so no sum over the cohort can leave the integers' range.

    Attributes:
        value_bits: of a value of weight 1.
        modulus_bits: of what travels.
        rounding: "stochastic" (unbiased; an exact multiple of the step stays) or "nearest".
    """

    value_bits: int
    modulus_bits: Literal[32, 64]
    rounding: Literal["stochastic", "nearest"]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned integers that travel."""
        return np.dtype(f"u{self.modulus_bits // 8}")

    @property
    def steps(self) -> int:
        """Steps from zero to the end of a range."""
        return 1 << (self.value_bits - 1)

    def encode(
        self,
        values: NDArray[np.float64],
        value_range: float,
        weight: float,
        rng: np.random.Generator | None,
    ) -> tuple[NDArray[Any], int]:
        """Round and clip.

        Args:
            values: float64 (n,), weighted sums.
            value_range: largest magnitude of a value of weight 1; above 0.
            weight: of the sum.
            rng: for stochastic rounding; None rounds to the nearest whatever `rounding` says.

        Returns:
            Unsigned integers (n,), and how many of them were clipped.

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
        clipped = int(np.count_nonzero(np.abs(rounded) > limit))
        return rounded.clip(-limit, limit).astype(np.int64).astype(self.dtype), clipped

    def decode(self, integers: NDArray[Any], value_range: float) -> NDArray[np.float64]:
        """The values of unsigned integers (n,), or of sums of them: float64 (n,)."""
        signed = integers.view(f"i{self.modulus_bits // 8}")
        return signed.astype(np.float64) * (value_range / self.steps)


Shapes = Mapping[str, tuple[int, ...]]
Integers = NDArray[Any]

_LOSS_RANGE = 64.0  # no mean training loss is larger; a larger one is clipped, and counted
_FACTS = (1.0, _LOSS_RANGE, 1.0, 1.0)  # ranges of what stands at the end, see `encode`


@dataclass(frozen=True, slots=True)
class CohortSum:
    """What clients have to say, summed.

    Attributes:
        total: of their updates or statistics.
        loss: the sum of their weighted mean training losses.
        replied: how many of them there are.
        clipped: how many values were clipped on their way.
    """

    total: UpdateSum
    loss: float
    replied: int
    clipped: int


def vector_length(shapes: Shapes, num_rows: int) -> int:
    """Length of the vector for tensors of these shapes and so many row weights."""
    return sum(prod(shape) for shape in shapes.values()) + num_rows + len(_FACTS)


def encode(
    said: CohortSum,
    quantizer: Quantizer,
    clip_range: float,
    most_weight: float,
    rng: np.random.Generator,
) -> Integers:
    """One vector: tensors by name, row weights, then weight, loss, replied, clipped.

    Args:
        said: a node's; `clipped` is counted here.
        quantizer: makes integers of it.
        clip_range: largest magnitude of a value of an update.
        most_weight: the largest weight that the clients asked could have, and more than they
            are; whatever is larger is clipped.
        rng: for stochastic rounding of tensors; counts are rounded to the nearest.
    """
    total, clipped, parts = said.total, 0, list[Integers]()
    weight = min(total.weight, most_weight)  # or a sum could wrap
    for name in sorted(total.tensors):
        flat = total.tensors[name].astype(np.float64).reshape(-1)
        part, beyond = quantizer.encode(flat, clip_range, weight, rng)
        parts.append(part)
        clipped += beyond
    rest = [(total.row_weight, 1.0)]
    facts = (total.weight, said.loss, float(said.replied))
    rest += [(np.array([fact]), end) for fact, end in zip(facts, _FACTS[:-1], strict=True)]
    for values, value_range in rest:
        part, beyond = quantizer.encode(values, value_range, most_weight, None)
        parts.append(part)
        clipped += beyond
    parts.append(quantizer.encode(np.array([float(clipped)]), _FACTS[-1], most_weight, None)[0])
    return np.concatenate(parts)


def decode(
    vector: Integers, quantizer: Quantizer, clip_range: float, shapes: Shapes, num_rows: int
) -> CohortSum:
    """What `encode` put into vectors, from their sum.

    Args:
        vector: of `vector_length`.
        quantizer: as it was encoded with.
        clip_range: as it was encoded with.
        shapes: of the tensors.
        num_rows: how many row weights there are.
    """
    tensors, start = {}, 0
    for name in sorted(shapes):
        stop = start + prod(shapes[name])
        flat = quantizer.decode(vector[start:stop], clip_range)
        tensors[name], start = flat.reshape(shapes[name]), stop
    row_weight = quantizer.decode(vector[start : start + num_rows], 1.0)
    weight, loss, replied, clipped = (
        float(quantizer.decode(vector[place : place + 1], value_range)[0])
        for place, value_range in enumerate(_FACTS, start + num_rows)
    )
    total = UpdateSum(tensors, weight, row_weight)
    return CohortSum(total, loss, round(replied), round(clipped))
