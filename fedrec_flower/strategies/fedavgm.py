"""FedAvgM: averaging with momentum on the server. Source: Hsu et al. 2019, section 4.3."""

from typing import Literal

from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.stepping import SteppingStrategy, fedavgm


class FedAvgM(SteppingStrategy):
    """Moves by the decayed sum of all averaged updates so far.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: scale of the step.
        momentum: decay of the sum, in [0, 1); 0 is FedAvg.
    """

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        server_learning_rate: float,
        momentum: float,
    ) -> None:
        super().__init__(plan, observer, aggregation, fedavgm(server_learning_rate, momentum))
