"""Sums and counts: all that the server learns from an evaluation.

What no honest evaluation exceeds: sums that lie would select the round.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared, starts
from fedrec_flower.evaluation.base import Evaluator


@dataclass(slots=True)
class MetricSums:
    """Per metric, the sum of the values, of their squares, and how many there were."""

    total: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    count: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, NDArray[np.float64]]) -> None:
        """Add values by metric; NaN means that a user has nothing to measure."""
        for metric, column in values.items():
            known = column[~np.isnan(column)]
            self.put(metric, float(known.sum()), float((known**2).sum()), float(len(known)))

    def merge(self, other: Self) -> None:
        """Add another node's sums."""
        for metric in other.total:
            self.put(metric, *other.of(metric))

    def put(self, metric: str, total: float, squares: float, count: float) -> None:
        """Add the sums of one metric."""
        self.total[metric] = self.total.get(metric, 0.0) + total
        self.squares[metric] = self.squares.get(metric, 0.0) + squares
        self.count[metric] = self.count.get(metric, 0.0) + count

    def of(self, metric: str) -> tuple[float, float, float]:
        """What `put` was given of one metric."""
        return self.total[metric], self.squares[metric], self.count[metric]

    def mean(self, metric: str) -> float:
        """Mean of the values; NaN if there is none."""
        count = self.count[metric]
        return self.total[metric] / count if count else float("nan")

    def standard_error(self, metric: str) -> float:
        """Standard error of the mean over users; NaN with fewer than two values."""
        count = self.count[metric]
        if count <= 1:
            return float("nan")
        spread = self.squares[metric] / count - self.mean(metric) ** 2
        return float(np.sqrt(max(spread, 0.0) / (count - 1)))


_ROUNDING = 1e-9  # sums are of float64


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the sums of some clients may be, whatever their node says.

    Attributes:
        names: of the metrics that are measured.
        value_range: lowest and highest value of any of them.
        num_users: int64 (num_clients,), users of each client.
        num_values: by part int64 (num_clients,), the most values that a metric has of them.
    """

    names: frozenset[str]
    value_range: tuple[float, float]
    num_users: NDArray[np.int64]
    num_values: Mapping[Part, NDArray[np.int64]]

    @classmethod
    def of(cls, evaluator: Evaluator, data: Prepared) -> Self:
        """What an evaluator may find in prepared data."""
        cuts = data.client_offsets
        most = {
            part: np.diff(starts(evaluator.most_values(data.part(part)))[cuts])
            for part in (Part.VALIDATION, Part.TEST)
        }
        return cls(frozenset(evaluator.names), evaluator.value_range, np.diff(cuts), most)

    def violation(self, sums: Mapping[Part, MetricSums], clients: Sequence[int]) -> Failure | None:
        """Check the sums of a node.

        Args:
            sums: sums by part.
            clients: codes of the clients that the sums claim to be of.

        Returns:
            The first violation, or None.
        """
        names = self.names if clients else frozenset[str]()
        for part, found in sums.items():
            if found.total.keys() != names:
                detail = f"{sorted(found.total)} instead of {sorted(names)}"
                return Failure(FailureKind.WRONG_NAMES, detail)
            most = float(self.num_values[part][clients].sum())
            for metric in names:
                if failure := self._metric_violation(*found.of(metric), most):
                    detail = f"{part.name.lower()} {metric} {failure.detail}"
                    return Failure(failure.kind, detail)
        return None

    def _metric_violation(
        self, total: float, squares: float, count: float, most: float
    ) -> Failure | None:
        """Check the sums of one metric over at most `most` values."""
        if not all(map(isfinite, (total, squares, count))):
            return Failure(FailureKind.NOT_FINITE, f"has a sum of {total:g} over {count:g} values")
        if not 0 <= count <= most or count % 1:
            return Failure(FailureKind.WRONG_COUNT, f"has {count:g} values, and there are {most:g}")
        mean, square = (total / count, squares / count) if count else (total, squares)
        low, high = self.value_range if count else (0.0, 0.0)
        if not low - _ROUNDING <= mean <= high + _ROUNDING:
            detail = f"has a mean of {mean:g}, beyond {low:g} to {high:g}"
            return Failure(FailureKind.OUT_OF_RANGE, detail)
        # The mean of squares is never below the square of the mean, nor beyond the largest square.
        if not mean * mean - _ROUNDING <= square * (1 + _ROUNDING) <= high * high + _ROUNDING:
            detail = f"has a mean of squares of {square:g} around a mean of {mean:g}"
            return Failure(FailureKind.OUT_OF_RANGE, detail)
        return None
