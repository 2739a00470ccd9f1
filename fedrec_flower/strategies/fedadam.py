"""FedAdam: Adam on the server, over averaged updates. Source: Reddi et al. 2021, Algorithm 2."""

from typing import Literal

from fedrec_flower.aggregation import AdamState, adam
from fedrec_flower.errors import require
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.plan import Observer, Plan


class FedAdam(FederatedStrategy):
    """Treats the averaged update as a negative gradient and lets Adam take the step.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adam's step size (eta).
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
        require(
            server_learning_rate >= 0,
            f"strategy.server_learning_rate must not be negative: {server_learning_rate}",
        )
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            require(0 <= beta < 1, f"strategy.{name} must be in [0, 1): {beta}")
        require(tau > 0, f"strategy.tau must be above 0: {tau}")
        super().__init__(plan, observer, aggregation)
        self.server_learning_rate = server_learning_rate
        self.beta1, self.beta2, self.tau = beta1, beta2, tau
        self._state = AdamState()

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.step`."""
        return adam(
            parameters,
            update,
            self._state,
            learning_rate=self.server_learning_rate,
            beta1=self.beta1,
            beta2=self.beta2,
            tau=self.tau,
        )
