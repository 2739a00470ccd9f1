"""Aggregation as pure functions on arrays; the strategies only pack and unpack."""

from fedrec_flower.aggregation.mean import (
    ROW_WEIGHT,
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
    weighted_mean,
)
from fedrec_flower.aggregation.packing import Cost, Sums, add_packed, pack
from fedrec_flower.aggregation.server_optimizers import AdamState, adam, average

__all__ = [
    "ROW_WEIGHT",
    "AdamState",
    "Cost",
    "Sums",
    "UpdateSum",
    "Updates",
    "adam",
    "add_packed",
    "average",
    "mean_over_all_clients",
    "mean_over_touching_clients",
    "pack",
    "weighted_mean",
]
