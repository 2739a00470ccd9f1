"""FedYogi: Yogi on the server, over averaged updates. Source: Reddi et al. 2021, Algorithm 2."""

from typing import Literal

from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.stepping import SteppingStrategy, fedyogi


class FedYogi(SteppingStrategy):
    """Treats the averaged update as a negative gradient and lets Yogi take the step.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Yogi's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        step = fedyogi(server_learning_rate, beta1, beta2, tau)
        super().__init__(plan, observer, aggregation, step)
