"""Federated strategies on Flower's message API."""

from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.centralized import Centralized
from fedrec_flower.strategies.fedadam import FedAdam
from fedrec_flower.strategies.fedavg import FedAvg
from fedrec_flower.strategies.local_only import LocalOnly
from fedrec_flower.strategies.plan import Observer, Outcome, Plan
from fedrec_flower.strategies.sums import Sums

__all__ = [
    "Centralized",
    "FedAdam",
    "FedAvg",
    "FederatedStrategy",
    "LocalOnly",
    "Observer",
    "Outcome",
    "Plan",
    "Sums",
]
