"""Federated averaging. Source: McMahan et al. 2017, Algorithm 1.

`strategy=reptile` is the same class: the step from the shared parameters towards the mean of what
the clients' training made of them, scaled by a rate, is the outer step of Reptile (Nichol et al.
2018, Algorithm 2; clients weighted by `num_examples` here). With a rate of 1 they are one.
"""

from typing import Literal

from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.stepping import SteppingStrategy, fedavg


class FedAvg(SteppingStrategy):
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
        super().__init__(plan, observer, aggregation, fedavg(server_learning_rate))
