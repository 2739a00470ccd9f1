"""Splits: which interactions train the model, select it and test it."""

from fedrec_flower.data.splits.base import Negatives, Splitter
from fedrec_flower.data.splits.cold_start import ColdItems, ColdUsers
from fedrec_flower.data.splits.leave_one_out import LeaveLastFraction, LeaveOneOut
from fedrec_flower.data.splits.published_folds import FileFolds
from fedrec_flower.data.splits.random import Random
from fedrec_flower.data.splits.temporal import Temporal

__all__ = [
    "ColdItems",
    "ColdUsers",
    "FileFolds",
    "LeaveLastFraction",
    "LeaveOneOut",
    "Negatives",
    "Random",
    "Splitter",
    "Temporal",
]
