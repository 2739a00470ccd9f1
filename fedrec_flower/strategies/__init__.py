"""Federated algorithms: how the server moves and how clients train."""

from fedrec_flower.strategies.baselines import Centralized, LocalOnly
from fedrec_flower.strategies.clustered import Clustered
from fedrec_flower.strategies.fedbuff import FedBuff
from fedrec_flower.strategies.feddyn import FedDyn
from fedrec_flower.strategies.fedopt import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedOpt,
    FedYogi,
)
from fedrec_flower.strategies.fedprox import FedProx
from fedrec_flower.strategies.perfedavg import PerFedAvg
from fedrec_flower.strategies.qfedavg import QFedAvg
from fedrec_flower.strategies.robust import Bulyan, Krum, Median, MultiKrum, NormBound, TrimmedMean
from fedrec_flower.strategies.scaffold import Scaffold
from fedrec_flower.strategies.sufficient_statistics import SufficientStatistics
from fedrec_flower.strategies.user_graph import UserGraph

__all__ = [
    "Bulyan",
    "Centralized",
    "Clustered",
    "FedAdagrad",
    "FedAdam",
    "FedAvg",
    "FedAvgM",
    "FedBuff",
    "FedDyn",
    "FedOpt",
    "FedProx",
    "FedYogi",
    "Krum",
    "LocalOnly",
    "Median",
    "MultiKrum",
    "NormBound",
    "PerFedAvg",
    "QFedAvg",
    "Scaffold",
    "SufficientStatistics",
    "TrimmedMean",
    "UserGraph",
]
