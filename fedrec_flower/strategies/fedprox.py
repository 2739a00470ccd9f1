"""FedProx: clients are drawn back to what they were given. Source: Li et al. 2020, Algorithm 2.

Each local step adds mu / learning rate * (value - given) to the gradient of every shared parameter
that the client touches: the derivative of the proximal term, in which the paper's mu is this one
over the learning rate. So it means the same for tables and for dense parameters, whose rates
differ, and for every model.
"""

from fedrec_flower.core.errors import require
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import Plain
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen


class FedProx(SteppingStrategy):
    """Averages updates of clients that did not go far.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        mu: share of its way from the given parameters that a client takes back at every step, in
            [0, 1]; 0 is plain averaging.
        server_optimizer: how the server steps, named as the strategy that averages and steps so.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if the share is none.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        mu: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require(0 <= mu <= 1, f"strategy.mu must be in [0, 1]: {mu}")
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
        self.mu = mu

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return Plain(proximal=self.mu)
