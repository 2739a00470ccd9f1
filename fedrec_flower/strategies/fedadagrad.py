"""FedAdagrad: Adagrad on the server. Source: Reddi et al. 2021, Algorithm 2."""

from typing import Literal

from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.stepping import SteppingStrategy, fedadagrad


class FedAdagrad(SteppingStrategy):
    """Treats the averaged update as a negative gradient and lets Adagrad take the step.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adagrad's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        tau: adaptivity: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        server_learning_rate: float,
        beta1: float,
        tau: float,
    ) -> None:
        step = fedadagrad(server_learning_rate, beta1, tau)
        super().__init__(plan, observer, aggregation, step)
