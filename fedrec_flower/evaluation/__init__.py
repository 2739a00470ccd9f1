"""Evaluation on the clients: values per user, of which only sums and counts leave the node."""

from fedrec_flower.evaluation.base import Evaluation, Evaluator, Records
from fedrec_flower.evaluation.bounds import Bounds
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.rating import RatingEvaluation
from fedrec_flower.evaluation.sums import MetricSums

__all__ = [
    "Bounds",
    "Evaluation",
    "Evaluator",
    "MetricSums",
    "RankingEvaluation",
    "RatingEvaluation",
    "Records",
]
