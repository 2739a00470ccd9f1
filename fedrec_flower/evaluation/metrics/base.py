"""The interface of ranking metrics, and their input: the ranks of the held-out items.

A new metric is one class. Subclass `TopKMetric` (or `RankingMetric`, if the metric has no k) and
register it in your package's pyproject.toml; `evaluation.metrics` then accepts its name:

    [project.entry-points."fedrec_flower.metrics"]
    f1 = "my_package.metrics:F1"
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Float64Array, IndexArray

PerUser = Float64Array
"""One value per user, float64 (num_users,); NaN for a user without a value."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks of each user's held-out items; user u owns rank[offsets[u]:offsets[u + 1]].

    Attributes:
        rank: int64 (n,), rank among the user's candidates, 1 is best; ascending per user.
        offsets: int64 (num_users + 1,), from 0 to n; equal neighbours mean no held-out item.
        num_candidates: int64 (num_users,), length of each ranked list, held-out items included.
    """

    rank: IndexArray
    offsets: IndexArray
    num_candidates: IndexArray

    @property
    def num_held_out(self) -> IndexArray:
        """Number of held-out items of each user, int64 (num_users,)."""
        return np.diff(self.offsets)

    @property
    def counted(self) -> IndexArray:
        """1 for each user with held-out items, 0 for the others, int64 (num_users,)."""
        return np.minimum(self.num_held_out, 1)

    @property
    def place(self) -> IndexArray:
        """Place of each held-out item among those of its user, int64 (n,), 1 is best."""
        starts = np.repeat(self.offsets[:-1], self.num_held_out)
        return np.arange(1, len(self.rank) + 1) - starts

    def total(self, values: NDArray[np.generic]) -> PerUser:
        """Sum `values` (n,), one per held-out item, over each user; float64 (num_users,)."""
        user = np.repeat(np.arange(len(self.counted)), self.num_held_out)
        # bincount, not reduceat: reduceat gives a user without items its neighbour's value.
        sums = np.bincount(user, weights=values, minlength=len(self.counted))
        return np.asarray(sums, dtype=np.float64)


class RankingMetric(ABC):
    """A ranking metric: one value from 0 to 1 per user, higher is better.

    Attributes:
        kind: name in `evaluation.metrics`, without "@k".
        label: name in figures.
        needs_candidates: whether the metric reads `Ranks.num_candidates`, which per-user tables do
            not have.
    """

    __slots__ = ()

    kind: ClassVar[str]
    label: ClassVar[str]
    needs_candidates: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name in tables, such as "auc" or "ndcg@10"."""
        return self.kind

    @abstractmethod
    def __call__(self, ranks: Ranks) -> PerUser:
        """Return the value of each user, float64 (num_users,); NaN without held-out items."""


@dataclass(frozen=True, slots=True)
class TopKMetric(RankingMetric):
    """A metric of the first k places of the ranked list.

    Attributes:
        k: number of places, at least 1.
    """

    k: int

    def __post_init__(self) -> None:
        """Check k."""
        if self.k < 1:
            raise ConfigError(f"{self.kind}@{self.k} is impossible: choose a k of at least 1")

    @property
    def name(self) -> str:
        """The name in tables, such as "ndcg@10"."""
        return f"{self.kind}@{self.k}"

    def hits(self, ranks: Ranks) -> PerUser:
        """Return the number of held-out items in the first k places, float64 (num_users,)."""
        return ranks.total(ranks.rank <= self.k)

    def max_hits(self, ranks: Ranks) -> IndexArray:
        """Return the largest possible number of hits: min(k, held-out items), (num_users,)."""
        return np.minimum(self.k, ranks.num_held_out)


def ratio(numerator: PerUser, denominator: IndexArray | PerUser) -> PerUser:
    """Divide per user, both (num_users,); NaN where the denominator is zero."""
    result = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=result, where=denominator > 0)
    return result
