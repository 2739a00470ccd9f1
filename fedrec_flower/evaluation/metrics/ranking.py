"""Ranking metrics: how high each user's held-out items rank among its candidates.

A user without held-out items is not counted: its value is NaN, and averages skip it (`np.nanmean`).

Source: Manning, Raghavan and Schuetze 2008, "Introduction to information retrieval", chapter 8,
for all metrics that do not cite another source.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from typing_extensions import override

from fedrec_flower.evaluation.metrics.base import PerUser, RankingMetric, Ranks, TopKMetric, ratio


@dataclass(frozen=True, slots=True)
class HitRate(TopKMetric):
    """1 if any held-out item is in the first k places, else 0."""

    kind: ClassVar[str] = "hr"
    label: ClassVar[str] = "HR"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        return ratio(np.minimum(self.hits(ranks), 1), ranks.counted)


@dataclass(frozen=True, slots=True)
class Recall(TopKMetric):
    """Share of the held-out items that are in the first k places."""

    kind: ClassVar[str] = "recall"
    label: ClassVar[str] = "Recall"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        return ratio(self.hits(ranks), ranks.num_held_out)


@dataclass(frozen=True, slots=True)
class Precision(TopKMetric):
    """Share of the first k places that hold held-out items."""

    kind: ClassVar[str] = "precision"
    label: ClassVar[str] = "Precision"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        return ratio(self.hits(ranks), self.k * ranks.counted)


@dataclass(frozen=True, slots=True)
class NDCG(TopKMetric):
    """Discounted cumulative gain of the first k places, divided by that of the ideal list.

    A held-out item has the gain 1 / log2(rank + 1).

    Source: Jarvelin and Kekalainen 2002, "Cumulated gain-based evaluation of IR techniques", with
    binary gains and the discount of Burges et al. 2005.
    """

    kind: ClassVar[str] = "ndcg"
    label: ClassVar[str] = "NDCG"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        gained = ranks.total(np.where(ranks.rank <= self.k, 1 / np.log2(ranks.rank + 1), 0))
        max_hits = self.max_hits(ranks)
        places = np.arange(1, max_hits.max(initial=0) + 1)
        ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(places + 1))])
        return ratio(gained, ideal[max_hits])


@dataclass(frozen=True, slots=True)
class MRR(TopKMetric):
    """1 / rank of the best held-out item if it is in the first k places, else 0."""

    kind: ClassVar[str] = "mrr"
    label: ClassVar[str] = "MRR"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        is_best_hit = (ranks.place == 1) & (ranks.rank <= self.k)
        return ratio(ranks.total(is_best_hit / ranks.rank), ranks.counted)


@dataclass(frozen=True, slots=True)
class MAP(TopKMetric):
    """Average precision: mean over min(k, held-out items) of the precision at each hit's rank.

    trec_eval divides by the number of held-out items instead, so that a perfect list of k items
    could score below 1 when more than k are held out.
    """

    kind: ClassVar[str] = "map"
    label: ClassVar[str] = "MAP"

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        precision = np.where(ranks.rank <= self.k, ranks.place / ranks.rank, 0)
        return ratio(ranks.total(precision), self.max_hits(ranks))


@dataclass(frozen=True, slots=True)
class AUC(RankingMetric):
    """Share of the pairs (held-out item, other candidate) that the model orders correctly.

    A tied pair counts as wrong. The value is also NaN for a user whose candidates are all held
    out.

    Source: Rendle et al. 2009, "BPR: Bayesian personalized ranking from implicit feedback",
    section 4.1.1.
    """

    kind: ClassVar[str] = "auc"
    label: ClassVar[str] = "AUC"
    needs_candidates: ClassVar[bool] = True

    @override
    def __call__(self, ranks: Ranks) -> PerUser:
        num_pairs = ranks.num_held_out * (ranks.num_candidates - ranks.num_held_out)
        num_wrong = ranks.total(ranks.rank - ranks.place)
        return ratio(num_pairs - num_wrong, num_pairs)
