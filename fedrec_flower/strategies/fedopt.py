"""FedOpt: the server steps by the averaged update with a server optimizer.

Source: Reddi et al. 2021, Algorithm 2 (FedAdagrad, FedAdam, FedYogi); McMahan et al. 2017,
Algorithm 1 (FedAvg); Hsu et al. 2019, section 4.3 (FedAvgM).

The strategies fedavg, fedavgm, fedadagrad, fedadam and fedyogi are FedOpt with one optimizer each.
`strategy=reptile` is FedAvg with a rate below 1: the outer step of Reptile (Nichol et al. 2018,
Algorithm 2), with clients weighted by `num_examples`.
"""

from typing import ClassVar

from typing_extensions import override

from fedrec_flower.core.ranges import NonNegativeFloat, PositiveFloat
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.strategies.aggregators.server_optimizers import (
    Adagrad,
    Adam,
    Average,
    Decay,
    Momentum,
    ServerOptimizer,
    Yogi,
)
from fedrec_flower.strategies.base import (
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
)


class FedOpt(FederatedStrategy):
    """Averages the updates and moves the global parameters with a server optimizer.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_optimizer: the server's optimizer.
    """

    uses_only_the_sum: ClassVar[bool] = True

    def __init__(
        self, info: FederationInfo, aggregation: Aggregation, server_optimizer: ServerOptimizer
    ) -> None:
        super().__init__(info, aggregation)
        self.server_optimizer = server_optimizer

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        return self.server_optimizer.step(parameters, update)

    @override
    def state(self) -> Tensors:
        return self.server_optimizer.state()

    @override
    def restore(self, state: Tensors) -> None:
        self.server_optimizer.restore(state)


class FedAvg(FedOpt):
    """w <- w + rate * sum over clients k of n_k / n * (w_k - w).

    n_k is the number of training interactions of client k and n their sum over the cohort; under
    "touched_clients", n of a table's row is the sum over the clients that touched it.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: the rate; 1 is the textbook's.
    """

    uses_only_the_sum: ClassVar[bool] = True

    def __init__(
        self, info: FederationInfo, aggregation: Aggregation, server_learning_rate: NonNegativeFloat
    ) -> None:
        super().__init__(info, aggregation, Average(server_learning_rate))

    @override
    def apply_sum(self, parameters: Tensors, total: UpdateSum, round_: RoundInfo) -> Tensors:
        mean_update = self.mean(total)
        return self.apply_update(parameters, mean_update)


class FedAvgM(FedOpt):
    """FedOpt with a momentum of all averaged updates.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: scale of the step.
        momentum: decay of the sum of past updates, in [0, 1); 0 is FedAvg.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: NonNegativeFloat,
        momentum: Decay,
    ) -> None:
        super().__init__(info, aggregation, Momentum(server_learning_rate, momentum))


class FedAdagrad(FedOpt):
    """FedOpt with Adagrad.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adagrad's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        tau: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: NonNegativeFloat,
        beta1: Decay,
        tau: PositiveFloat,
    ) -> None:
        super().__init__(info, aggregation, Adagrad(server_learning_rate, beta1, tau))


class FedAdam(FedOpt):
    """FedOpt with Adam.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adam's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: NonNegativeFloat,
        beta1: Decay,
        beta2: Decay,
        tau: PositiveFloat,
    ) -> None:
        super().__init__(info, aggregation, Adam(server_learning_rate, beta1, tau, beta2))


class FedYogi(FedOpt):
    """FedOpt with Yogi. Arguments: see `FedAdam`."""

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: NonNegativeFloat,
        beta1: Decay,
        beta2: Decay,
        tau: PositiveFloat,
    ) -> None:
        super().__init__(info, aggregation, Yogi(server_learning_rate, beta1, tau, beta2))
