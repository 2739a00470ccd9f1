"""Sums and counts: all that the server learns from an evaluation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray


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
