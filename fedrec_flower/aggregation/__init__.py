"""Aggregation as pure functions on arrays; the strategies only pack and unpack."""

from fedrec_flower.aggregation.clusters import (
    nearest_group,
    spherical_groups,
    update_cosines,
)
from fedrec_flower.aggregation.elections import (
    BULYAN_NEEDS,
    KRUM_NEEDS,
    bulyan,
    krum,
    multi_krum,
)
from fedrec_flower.aggregation.fairness import fair_sum
from fedrec_flower.aggregation.graph import (
    cosine_similarity,
    mean_over_neighbours,
    neighbour_shares,
)
from fedrec_flower.aggregation.mean import (
    ROW_WEIGHT,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
    weighted_mean,
)
from fedrec_flower.aggregation.packing import ROWS, Cost, Sums, add_packed, pack
from fedrec_flower.aggregation.robust import median, norm_bound, share_of, trimmed_mean
from fedrec_flower.aggregation.screening import DIVERGED, HUGE, Limits
from fedrec_flower.aggregation.server_optimizers import (
    Moments,
    adagrad,
    adam,
    average,
    momentum,
    yogi,
)
from fedrec_flower.aggregation.updates import LAYOUT, Updates
from fedrec_flower.aggregation.votes import PerRow, Shapes

__all__ = [
    "BULYAN_NEEDS",
    "DIVERGED",
    "HUGE",
    "KRUM_NEEDS",
    "LAYOUT",
    "ROWS",
    "ROW_WEIGHT",
    "Cost",
    "Limits",
    "Moments",
    "PerRow",
    "Shapes",
    "Sums",
    "UpdateSum",
    "Updates",
    "adagrad",
    "adam",
    "add_packed",
    "average",
    "bulyan",
    "cosine_similarity",
    "fair_sum",
    "krum",
    "mean_over_all_clients",
    "mean_over_neighbours",
    "mean_over_touching_clients",
    "median",
    "momentum",
    "multi_krum",
    "nearest_group",
    "neighbour_shares",
    "norm_bound",
    "pack",
    "share_of",
    "spherical_groups",
    "trimmed_mean",
    "update_cosines",
    "weighted_mean",
    "yogi",
]
