"""Numbers as integers whose sum over a cohort cannot wrap."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import TrainingError


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
