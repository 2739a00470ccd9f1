"""Aggregation as pure functions on arrays; the strategies only pack and unpack."""

from fedrec_flower.aggregation.mean import (
    ROW_WEIGHT,
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
    merge,
    weighted_mean,
)
from fedrec_flower.aggregation.server_optimizers import AdamState, adam, average

__all__ = [
    "ROW_WEIGHT",
    "AdamState",
    "UpdateSum",
    "Updates",
    "adam",
    "average",
    "mean_over_all_clients",
    "mean_over_touching_clients",
    "merge",
    "weighted_mean",
]
