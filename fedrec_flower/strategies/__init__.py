"""Federated strategies on Flower's message API."""

from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.centralized import Centralized
from fedrec_flower.strategies.clustered import Clustered
from fedrec_flower.strategies.elections import Bulyan, Krum, MultiKrum
from fedrec_flower.strategies.fedadagrad import FedAdagrad
from fedrec_flower.strategies.fedadam import FedAdam
from fedrec_flower.strategies.fedavg import FedAvg
from fedrec_flower.strategies.fedavgm import FedAvgM
from fedrec_flower.strategies.fedbuff import FedBuff
from fedrec_flower.strategies.feddyn import FedDyn
from fedrec_flower.strategies.fedprox import FedProx
from fedrec_flower.strategies.fedyogi import FedYogi
from fedrec_flower.strategies.graph import UserGraph
from fedrec_flower.strategies.local_only import LocalOnly
from fedrec_flower.strategies.perfedavg import PerFedAvg
from fedrec_flower.strategies.plan import Observer, Outcome, Plan
from fedrec_flower.strategies.qfedavg import QFedAvg
from fedrec_flower.strategies.robust import Median, NormBound, TrimmedMean
from fedrec_flower.strategies.scaffold import Scaffold
from fedrec_flower.strategies.sums import Sums

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
    "FedProx",
    "FedYogi",
    "FederatedStrategy",
    "Krum",
    "LocalOnly",
    "Median",
    "MultiKrum",
    "NormBound",
    "Observer",
    "Outcome",
    "PerFedAvg",
    "Plan",
    "QFedAvg",
    "Scaffold",
    "Sums",
    "TrimmedMean",
    "UserGraph",
]
