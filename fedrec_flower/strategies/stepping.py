"""How the server steps by the averaged update, and what it remembers from step to step."""

from collections.abc import Callable
from functools import partial
from typing import Literal

from fedrec_flower.aggregation import Moments, adagrad, adam, average, momentum, yogi
from fedrec_flower.errors import require
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.plan import Observer, Plan

Step = Callable[[Tensors, Tensors, Moments], Tensors]  # of parameters by an averaged update
ServerOptimizer = Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]


class SteppingStrategy(FederatedStrategy):
    """A strategy whose server steps by one of the optimisers below.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: see `FederatedStrategy`.
        step: the optimiser, its rates bound.
    """

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        step: Step,
    ) -> None:
        super().__init__(plan, observer, aggregation)
        self._step, self._moments = step, Moments()

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.step`."""
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
