"""Figures drawn from the tables of run folders; nothing here trains or measures."""

from fedrec_flower.plots.activity import metric_by_activity
from fedrec_flower.plots.clients import data_partition, participation
from fedrec_flower.plots.models import comparison
from fedrec_flower.plots.rounds import convergence
from fedrec_flower.plots.style import save

__all__ = [
    "comparison",
    "convergence",
    "data_partition",
    "metric_by_activity",
    "participation",
    "save",
]
