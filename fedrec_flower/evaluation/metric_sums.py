"""Sums and counts of metric values, the content of an evaluation reply, and their bounds.

The bounds reject impossible sums, with which a node could decide which round is released.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Self

import numpy as np

from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Prepared, starts
from fedrec_flower.evaluation.base import Evaluator


@dataclass(slots=True)
class MetricSums:
    """The sum of the values, the sum of their squares and their number, by metric."""

    total: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    count: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, Float64Array]) -> None:
        """Add values by metric; NaN is ignored."""
        for metric, column in values.items():
            finite = column[~np.isnan(column)]
            self.put(metric, float(finite.sum()), float((finite**2).sum()), float(len(finite)))

    def merge(self, other: Self) -> None:
        """Add the sums of another node."""
        for metric in other.total:
            self.put(metric, *other.of(metric))

    def put(self, metric: str, total: float, squares: float, count: float) -> None:
        """Add the sums of one metric."""
        self.total[metric] = self.total.get(metric, 0.0) + total
        self.squares[metric] = self.squares.get(metric, 0.0) + squares
        self.count[metric] = self.count.get(metric, 0.0) + count

    def of(self, metric: str) -> tuple[float, float, float]:
        """Return the sum, the sum of squares and the count of one metric."""
        return self.total[metric], self.squares[metric], self.count[metric]

    def mean(self, metric: str) -> float:
        """Return the mean of the values; NaN without values."""
        count = self.count[metric]
        return self.total[metric] / count if count else float("nan")

    def standard_error(self, metric: str) -> float:
        """Return the standard error of the mean; NaN for fewer than two values."""
        count = self.count[metric]
        if count <= 1:
            return float("nan")
        variance = self.squares[metric] / count - self.mean(metric) ** 2
        return float(np.sqrt(max(variance, 0.0) / (count - 1)))


_ROUNDING = 1e-9  # tolerance for the rounding of float64 sums


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of the evaluation sums of clients, against which a node's reply is checked.

    Attributes:
        names: names of the computed metrics.
        value_range: lowest and highest value of all metrics.
        num_users: int64 (num_clients,), number of users of each client.
        num_values: int64 (num_clients,) by part, largest number of values of a metric.
    """

    names: frozenset[str]
    value_range: tuple[float, float]
    num_users: IndexArray
    num_values: Mapping[Part, IndexArray]

    @classmethod
    def of(cls, evaluator: Evaluator, data: Prepared) -> Self:
        """Return the limits of an evaluator on prepared data."""
        offsets = data.client_offsets
        num_values = {
            part: np.diff(starts(evaluator.max_values(data.part(part)))[offsets])
            for part in (Part.VALIDATION, Part.TEST)
        }
        return cls(frozenset(evaluator.names), evaluator.value_range, np.diff(offsets), num_values)

    def violation(self, sums: Mapping[Part, MetricSums], clients: Sequence[int]) -> Failure | None:
        """Check the sums of a node.

        Args:
            sums: sums by part.
            clients: codes of the clients that the sums claim to be of.

        Returns:
            The first violation, or None.
        """
        names = self.names if clients else frozenset[str]()
        for part, metric_sums in sums.items():
            if metric_sums.total.keys() != names:
                detail = f"{sorted(metric_sums.total)} instead of {sorted(names)}"
                return Failure(FailureKind.WRONG_NAMES, detail)
            max_count = float(self.num_values[part][clients].sum())
            for metric in names:
                if failure := self._metric_violation(*metric_sums.of(metric), max_count):
                    detail = f"{part.name.lower()} {metric} {failure.detail}"
                    return Failure(failure.kind, detail)
        return None

    def _metric_violation(
        self, total: float, squares: float, count: float, max_count: float
    ) -> Failure | None:
        """Check the sums of one metric over at most `max_count` values."""
        if not all(map(isfinite, (total, squares, count))):
            return Failure(FailureKind.NOT_FINITE, f"has a sum of {total:g} over {count:g} values")
        if not 0 <= count <= max_count or count % 1:
            return Failure(
                FailureKind.WRONG_COUNT, f"has {count:g} values, and there are {max_count:g}"
            )
        mean, square = (total / count, squares / count) if count else (total, squares)
        low, high = self.value_range if count else (0.0, 0.0)
        if not low - _ROUNDING <= mean <= high + _ROUNDING:
            detail = f"has a mean of {mean:g}, beyond {low:g} to {high:g}"
            return Failure(FailureKind.OUT_OF_RANGE, detail)
        # The mean of squares is at least the square of the mean, and at most the largest square.
        if not mean * mean - _ROUNDING <= square * (1 + _ROUNDING) <= high * high + _ROUNDING:
            detail = f"has a mean of squares of {square:g} around a mean of {mean:g}"
            return Failure(FailureKind.OUT_OF_RANGE, detail)
        return None
