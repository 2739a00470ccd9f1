"""Figures of run folders. Only tables are read."""

from fedrec_flower.reports.figures.communication_cost import (
    accuracy_against_megabytes,
    accuracy_against_upload,
    has_traffic,
    metric_by_activity,
    protocol_leak,
)
from fedrec_flower.reports.figures.comparison import comparison
from fedrec_flower.reports.figures.privacy import (
    has_inference_results,
    privacy_leakage,
    privacy_utility,
)
from fedrec_flower.reports.figures.run import convergence, data_partition, participation
from fedrec_flower.reports.figures.style import save
from fedrec_flower.reports.figures.sweeps import (
    accuracy_against_clock,
    attacks_on_defences,
    strategies_on_partitions,
    time_to_accuracy,
)

__all__ = [
    "accuracy_against_clock",
    "accuracy_against_megabytes",
    "accuracy_against_upload",
    "attacks_on_defences",
    "comparison",
    "convergence",
    "data_partition",
    "has_inference_results",
    "has_traffic",
    "metric_by_activity",
    "participation",
    "privacy_leakage",
    "privacy_utility",
    "protocol_leak",
    "save",
    "strategies_on_partitions",
    "time_to_accuracy",
]
