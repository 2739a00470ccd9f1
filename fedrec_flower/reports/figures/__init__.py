"""Figures drawn from the tables of run folders; nothing here trains or measures."""

from fedrec_flower.reports.figures.comparison import comparison
from fedrec_flower.reports.figures.cost import (
    accuracy_against_megabytes,
    accuracy_against_upload,
    leak,
    metric_by_activity,
    sends_anything,
)
from fedrec_flower.reports.figures.privacy import (
    is_spied_on,
    privacy_utility,
    what_the_curious_learn,
)
from fedrec_flower.reports.figures.run import convergence, data_partition, participation
from fedrec_flower.reports.figures.style import save
from fedrec_flower.reports.figures.sweeps import (
    accuracy_against_clock,
    attacks_on_defences,
    strategies_on_partitions,
    way_to_goal,
)

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
