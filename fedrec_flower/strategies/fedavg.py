"""Federated averaging. Source: McMahan et al. 2017, Algorithm 1."""

from typing import Literal

from fedrec_flower.aggregation import average
from fedrec_flower.errors import require
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.plan import Observer, Plan


class FedAvg(FederatedStrategy):
    """Adds the averaged update to the global parameters.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: scale of the averaged update; 1 is the textbook's.
    """

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        server_learning_rate: float,
    ) -> None:
        require(
            server_learning_rate >= 0,
            f"strategy.server_learning_rate must not be negative: {server_learning_rate}",
        )
        super().__init__(plan, observer, aggregation)
        self.server_learning_rate = server_learning_rate

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.step`."""
        return average(parameters, update, self.server_learning_rate)
