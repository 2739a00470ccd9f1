"""Ranking metrics: how high the held-out items of each user stand among its candidates.

Each metric is a small value that maps `Ranks` to one number per user, higher is better. A user
without held-out items is not counted: its value is NaN, and averages skip it (`np.nanmean`).

Source: Manning, Raghavan and Schuetze 2008, "Introduction to information retrieval", chapter 8,
for all but those that cite their own.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

PerUser = NDArray[np.float64]  # (num_users,)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Where the held-out items of each user stand; user u owns rank[offsets[u]:offsets[u + 1]].

    Attributes:
        rank: int64 (n,), position among the user's candidates, 1 is best; ascending per user.
        offsets: int64 (num_users + 1,), from 0 to n; equal neighbours mean no held-out item.
        num_candidates: int64 (num_users,), length of each ranked list, held-out items included.
    """

    rank: NDArray[np.int64]
    offsets: NDArray[np.int64]
    num_candidates: NDArray[np.int64]

    @property
    def num_held_out(self) -> NDArray[np.int64]:
        """Number of held-out items of each user, int64 (num_users,)."""
        return np.diff(self.offsets)

    @property
    def counted(self) -> NDArray[np.int64]:
        """1 for each user with held-out items, 0 for the others, int64 (num_users,)."""
        return np.minimum(self.num_held_out, 1)

    @property
    def place(self) -> NDArray[np.int64]:
        """Place of each held-out item among those of its user, int64 (n,), 1 is best."""
        starts = np.repeat(self.offsets[:-1], self.num_held_out)
        return np.arange(1, len(self.rank) + 1) - starts

    def total(self, values: NDArray[np.generic]) -> PerUser:
        """Sum over each user of `values` (n,), one per held-out item; float64 (num_users,)."""
        user = np.repeat(np.arange(len(self.counted)), self.num_held_out)
        # bincount, not reduceat: reduceat gives a user without items its neighbour's value.
        sums = np.bincount(user, weights=values, minlength=len(self.counted))
        return np.asarray(sums, dtype=np.float64)


class Metric(Protocol):
    """What every ranking metric offers."""

    @property
    def name(self) -> str:
        """The name in tables, such as "ndcg@10"."""
        ...

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        ...


@dataclass(frozen=True, slots=True)
class _AtK:
    """A metric of the first k places of the ranked list."""

    kind: ClassVar[str]
    k: int

    def __post_init__(self) -> None:
        if self.k < 1:
            raise ConfigError(f"{self.kind}@{self.k} is impossible: choose a k of at least 1")

    @property
    def name(self) -> str:
        """The name in tables, such as "ndcg@10"."""
        return f"{self.kind}@{self.k}"

    def _hits(self, ranks: Ranks) -> PerUser:
        """How many held-out items stand in the first k places, float64 (num_users,)."""
        return ranks.total(ranks.rank <= self.k)

    def _most_hits(self, ranks: Ranks) -> NDArray[np.int64]:
        """How many could, at best: min(k, held-out items), int64 (num_users,)."""
        return np.minimum(self.k, ranks.num_held_out)


@dataclass(frozen=True, slots=True)
class HitRate(_AtK):
    """1 if any held-out item stands in the first k places, else 0."""

    kind: ClassVar[str] = "hr"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        return _ratio(np.minimum(self._hits(ranks), 1), ranks.counted)


@dataclass(frozen=True, slots=True)
class Recall(_AtK):
    """Share of the held-out items that stand in the first k places."""

    kind: ClassVar[str] = "recall"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        return _ratio(self._hits(ranks), ranks.num_held_out)


@dataclass(frozen=True, slots=True)
class Precision(_AtK):
    """Share of the first k places that held-out items take."""

    kind: ClassVar[str] = "precision"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        return _ratio(self._hits(ranks), self.k * ranks.counted)


@dataclass(frozen=True, slots=True)
class NDCG(_AtK):
    """Discounted gain of the first k places, gain 1 / log2(rank + 1), over the ideal list's.

    Source: Jarvelin and Kekalainen 2002, "Cumulated gain-based evaluation of IR techniques", with
    binary gains and the discount of Burges et al. 2005.
    """

    kind: ClassVar[str] = "ndcg"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        gained = ranks.total(np.where(ranks.rank <= self.k, 1 / np.log2(ranks.rank + 1), 0))
        most_hits = self._most_hits(ranks)
        places = np.arange(1, most_hits.max(initial=0) + 1)
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(places + 1))])
        return _ratio(gained, ideal[most_hits])


@dataclass(frozen=True, slots=True)
class MRR(_AtK):
    """1 / rank of the best held-out item if it stands in the first k places, else 0."""

    kind: ClassVar[str] = "mrr"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        is_best_hit = (ranks.place == 1) & (ranks.rank <= self.k)
        return _ratio(ranks.total(is_best_hit / ranks.rank), ranks.counted)


@dataclass(frozen=True, slots=True)
class MAP(_AtK):
    """Average precision: mean over min(k, held-out items) of the precision at each hit's rank.

    trec_eval divides by the number of held-out items instead, so that a perfect list of k items
    could score below 1 when more than k are held out.
    """

    kind: ClassVar[str] = "map"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        precision = np.where(ranks.rank <= self.k, ranks.place / ranks.rank, 0)
        return _ratio(ranks.total(precision), self._most_hits(ranks))


@dataclass(frozen=True, slots=True)
class AUC:
    """Share of the pairs (held-out item, other candidate) that the model orders rightly.

    A tied pair is a wrong one, as ties count against the model. NaN also for a user whose
    candidates are all held out.

    Source: Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback",
    section 4.1.1.
    """

    name: ClassVar[str] = "auc"

    def __call__(self, ranks: Ranks) -> PerUser:
        """The value of each user, float64 (num_users,); NaN for a user that is not counted."""
        num_pairs = ranks.num_held_out * (ranks.num_candidates - ranks.num_held_out)
        num_wrong = ranks.total(ranks.rank - ranks.place)
        return _ratio(num_pairs - num_wrong, num_pairs)


def _ratio(numerator: PerUser, denominator: NDArray[np.int64] | PerUser) -> PerUser:
    """Divide per user, both (num_users,); NaN where the denominator is zero."""
    ratio = np.full(len(numerator), np.nan)
    np.divide(numerator, denominator, out=ratio, where=denominator > 0)
    return ratio


_AT_K = {metric.kind: metric for metric in (HitRate, Recall, Precision, NDCG, MRR, MAP)}


@cache
def _installed_metrics() -> dict[str, EntryPoint]:
    """Metrics of installed packages, by kind: entry points of the group `fedrec_flower.metrics`."""
    return {point.name: point for point in entry_points(group="fedrec_flower.metrics")}


def parse_metric(name: str) -> Metric:
    """Build the metric of a name such as "ndcg@10" or "auc".

    An installed package adds a metric by an entry point of the group `fedrec_flower.metrics`. Its
    name is the part before "@"; its object is called with k, or without arguments if the name has
    no "@", and returns a `Metric` with values from 0 to 1 and the given name.

    Raises:
        ConfigError: if there is no such metric or k is not an integer of at least 1; lists the
            possible ones.
    """
    if name == AUC.name:
        return AUC()
    kind, at, k = name.partition("@")
    if k.isdecimal() if at else kind in _installed_metrics():
        if kind in _AT_K:
            return _AT_K[kind](int(k))
        if kind in _installed_metrics():
            make: Callable[..., Metric] = _installed_metrics()[kind].load()
            return make(int(k)) if at else make()
    kinds = [*_AT_K, *_installed_metrics()]
    example = k if k.isdecimal() else "10"
    candidates = [*(f"{kind}@{example}" for kind in kinds), AUC.name]
    close = get_close_matches(name.lower(), candidates, n=1)
    hint = f", did you mean {close[0]}" if close else ""
    known = ", ".join([*(f"{kind}@k" for kind in kinds), AUC.name])
    raise ConfigError(f"there is no metric {name}{hint}: choose from {known} (k at least 1)")
