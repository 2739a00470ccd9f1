"""How the server steps by the averaged update, and what it remembers from step to step.

Federated averaging. Source: McMahan et al. 2017, Algorithm 1.

`strategy=reptile` is the same class: the step from the shared parameters towards the mean of what
the clients' training made of them, scaled by a rate, is the outer step of Reptile (Nichol et al.
2018, Algorithm 2; clients weighted by `num_examples` here). With a rate of 1 they are one.

FedAvgM: averaging with momentum on the server. Source: Hsu et al. 2019, section 4.3.

FedAdagrad: Adagrad on the server. Source: Reddi et al. 2021, Algorithm 2.

FedAdam: Adam on the server, over averaged updates. Source: Reddi et al. 2021, Algorithm 2.

FedYogi: Yogi on the server, over averaged updates. Source: Reddi et al. 2021, Algorithm 2.
"""

from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Tensors
from fedrec_flower.strategies.aggregators.server_optimizers import (
    Moments,
    adagrad,
    adam,
    average,
    momentum,
    yogi,
)
from fedrec_flower.strategies.base import Aggregation, FederatedStrategy, FederationInfo

Step = Callable[[Tensors, Tensors, Moments], Tensors]  # of parameters by an averaged update
ServerOptimizer = Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]


class SteppingStrategy(FederatedStrategy):
    """A strategy whose server steps by one of the optimisers below.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        step: the optimiser, its rates bound.
    """

    uses_only_the_sum: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        step: Step,
    ) -> None:
        super().__init__(info, aggregation)
        self._step, self._moments = step, Moments()

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.server_step`."""
        return self._step(parameters, update, self._moments)

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`; the optimiser's moments."""
        return self._moments.arrays()

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        self._moments.restore(state)


def fedavg(learning_rate: float) -> Step:
    """See `aggregation.average`."""
    _check(learning_rate)
    return lambda parameters, update, _: average(parameters, update, learning_rate)


def fedavgm(learning_rate: float, decay: float) -> Step:
    """See `aggregation.momentum`; `decay` is the momentum."""
    _check(learning_rate, momentum=decay)
    return partial(momentum, learning_rate=learning_rate, momentum=decay)


def fedadagrad(learning_rate: float, beta1: float, tau: float) -> Step:
    """See `aggregation.adagrad`."""
    _check(learning_rate, tau, beta1=beta1)
    return partial(adagrad, learning_rate=learning_rate, beta1=beta1, tau=tau)


def fedadam(learning_rate: float, beta1: float, beta2: float, tau: float) -> Step:
    """See `aggregation.adam`."""
    _check(learning_rate, tau, beta1=beta1, beta2=beta2)
    return partial(adam, learning_rate=learning_rate, beta1=beta1, beta2=beta2, tau=tau)


def fedyogi(learning_rate: float, beta1: float, beta2: float, tau: float) -> Step:
    """See `aggregation.yogi`."""
    _check(learning_rate, tau, beta1=beta1, beta2=beta2)
    return partial(yogi, learning_rate=learning_rate, beta1=beta1, beta2=beta2, tau=tau)


def chosen(
    optimizer: ServerOptimizer, learning_rate: float, beta1: float, beta2: float, tau: float
) -> Step:
    """The optimiser of a name; of the rates it takes those that it has a use for.

    Args:
        optimizer: named as the strategy that averages and steps by it.
        learning_rate: server learning rate.
        beta1: decay of the first moment; the momentum of "fedavgm".
        beta2: decay of the second moment.
        tau: floor of the denominator, in units of the parameters.

    Raises:
        ConfigError: if a rate is impossible.
    """
    steps: dict[ServerOptimizer, Callable[[], Step]] = {
        "fedavg": lambda: fedavg(learning_rate),
        "fedavgm": lambda: fedavgm(learning_rate, beta1),
        "fedadagrad": lambda: fedadagrad(learning_rate, beta1, tau),
        "fedadam": lambda: fedadam(learning_rate, beta1, beta2, tau),
        "fedyogi": lambda: fedyogi(learning_rate, beta1, beta2, tau),
    }
    return steps[optimizer]()


def _check(learning_rate: float, tau: float = 1.0, **decays: float) -> None:
    require(
        learning_rate >= 0,
        f"strategy.server_learning_rate must not be negative: {learning_rate}",
    )
    for name, decay in decays.items():
        require(0 <= decay < 1, f"strategy.{name} must be in [0, 1): {decay}")
    require(tau > 0, f"strategy.tau must be above 0: {tau}")


def under(state: Tensors, prefix: str) -> Tensors:
    """What of a state stands under a prefix, by what follows the prefix."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}


class FedAvg(SteppingStrategy):
    """Adds the averaged update to the global parameters.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: scale of the averaged update; 1 is the textbook's.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: float,
    ) -> None:
        super().__init__(info, aggregation, fedavg(server_learning_rate))


class FedAvgM(SteppingStrategy):
    """Moves by the decayed sum of all averaged updates so far.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: scale of the step.
        momentum: decay of the sum, in [0, 1); 0 is FedAvg.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: float,
        momentum: float,
    ) -> None:
        super().__init__(info, aggregation, fedavgm(server_learning_rate, momentum))


class FedAdagrad(SteppingStrategy):
    """Treats the averaged update as a negative gradient and lets Adagrad take the step.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adagrad's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        tau: adaptivity: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: float,
        beta1: float,
        tau: float,
    ) -> None:
        step = fedadagrad(server_learning_rate, beta1, tau)
        super().__init__(info, aggregation, step)


class FedAdam(SteppingStrategy):
    """Treats the averaged update as a negative gradient and lets Adam take the step.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Adam's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        step = fedadam(server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)


class FedYogi(SteppingStrategy):
    """Treats the averaged update as a negative gradient and lets Yogi take the step.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        server_learning_rate: Yogi's step size (eta).
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity: floor of the denominator, in units of the parameters.
    """

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        step = fedyogi(server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
