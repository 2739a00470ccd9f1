"""Evaluation on the nodes: metric values per user. A node sends only sums and counts."""

from fedrec_flower.evaluation.base import Evaluation, Evaluator, Records
from fedrec_flower.evaluation.metric_sums import Bounds, MetricSums
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.rating import RatingEvaluation

__all__ = [
    "Bounds",
    "Evaluation",
    "Evaluator",
    "MetricSums",
    "RankingEvaluation",
    "RatingEvaluation",
    "Records",
]
