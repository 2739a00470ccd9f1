"""Figures drawn from the tables of run folders; nothing here trains or measures."""

from fedrec_flower.plots.activity import metric_by_activity
from fedrec_flower.plots.attacks import attacks_on_defences
from fedrec_flower.plots.clients import data_partition, participation
from fedrec_flower.plots.clock import accuracy_against_clock
from fedrec_flower.plots.cost import (
    accuracy_against_megabytes,
    accuracy_against_upload,
    sends_anything,
)
from fedrec_flower.plots.curious import is_spied_on, what_the_curious_learn
from fedrec_flower.plots.goal import way_to_goal
from fedrec_flower.plots.leak import leak
from fedrec_flower.plots.models import comparison
from fedrec_flower.plots.privacy import privacy_utility
from fedrec_flower.plots.rounds import convergence
from fedrec_flower.plots.skew import strategies_on_partitions
from fedrec_flower.plots.style import save

__all__ = [
    "accuracy_against_clock",
    "accuracy_against_megabytes",
    "accuracy_against_upload",
    "attacks_on_defences",
    "comparison",
    "convergence",
    "data_partition",
    "is_spied_on",
    "leak",
    "metric_by_activity",
    "participation",
    "privacy_utility",
    "save",
    "sends_anything",
    "strategies_on_partitions",
    "way_to_goal",
    "what_the_curious_learn",
]
