"""FedProx: a proximal term in every local step. Source: Li et al. 2020, Algorithm 2.

Each local step adds mu / learning rate * (value - global value) to the gradient of every shared
parameter that the client touches: the derivative of the proximal term, in which the paper's mu is
this one over the learning rate. So mu means the same for tables and for dense parameters, whose
learning rates differ, and for every model.
"""

from typing_extensions import override

from fedrec_flower.core.ranges import Fraction
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer
from fedrec_flower.strategies.base import Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate
from fedrec_flower.strategies.fedopt import FedOpt


class FedProx(FedOpt):
    """FedOpt whose clients train with a proximal term.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        mu: share of its distance from the global value that each step takes back, in [0, 1]; 0 is
            FedOpt.
        server_optimizer: the server's optimizer.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        mu: Fraction,
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, server_optimizer)
        self.mu = mu

    @override
    def client_update(self) -> LocalUpdateRule:
        return PlainUpdate(proximal=self.mu)
