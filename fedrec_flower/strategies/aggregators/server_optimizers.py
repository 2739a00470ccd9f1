"""Server optimisers: how the averaged update moves the global parameters.

The averaged update is the negative pseudo-gradient. All but `average` remember moments of the
updates so far and change them in place; they differ in the second moment they divide by.

Source: Reddi et al. 2021, Algorithm 2 (`adagrad`, `adam`, `yogi`); Hsu et al. 2019 (`momentum`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]
_Second = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


@dataclass(slots=True)
class Moments:
    """What a server optimiser remembers of the averaged updates.

    Attributes:
        first: moving average of the updates (`momentum`: their decayed sum), shaped like them.
        second: of their squares; empty where the optimiser has no use for it.
        num_steps: steps taken.
    """

    first: Tensors = field(default_factory=dict)
    second: Tensors = field(default_factory=dict)
    num_steps: int = 0

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything, by flat names such as "first/item_bias.weight"; nothing before a step."""
        if not self.num_steps:
            return {}
        first = {f"first/{name}": value for name, value in self.first.items()}
        second = {f"second/{name}": value for name, value in self.second.items()}
        return {**first, **second, "num_steps": np.array(self.num_steps)}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Go on from what `arrays` gave; whatever was remembered before is forgotten."""
        self.first, self.second = (
            {n.removeprefix(kind): v for n, v in arrays.items() if n.startswith(kind)}
            for kind in ("first/", "second/")
        )
        self.num_steps = int(arrays.get("num_steps", 0))


def average(parameters: Tensors, update: Tensors, learning_rate: float) -> Tensors:
    """Add the averaged update, scaled; a rate of one is FedAvg, of zero changes nothing."""
    rate = np.float32(learning_rate)
    return {name: value + rate * update[name] for name, value in parameters.items()}


def momentum(
    parameters: Tensors,
    update: Tensors,
    moments: Moments,
    *,
    learning_rate: float,
    momentum: float,
) -> Tensors:
    """One FedAvgM step, by the decayed sum of all updates; no momentum is FedAvg.

    Args:
        parameters: current global parameters.
        update: averaged update, same names and shapes.
        moments: empty before the first step.
        learning_rate: server learning rate: scale of the step.
        momentum: decay of the sum, in [0, 1).
    """
    moments.num_steps += 1
    for name in parameters:
        before = moments.first.get(name, np.float32(0))
        moments.first[name] = np.float32(momentum) * before + update[name]
    return average(parameters, moments.first, learning_rate)


def adagrad(
    parameters: Tensors,
    update: Tensors,
    moments: Moments,
    *,
    learning_rate: float,
    beta1: float,
    tau: float,
) -> Tensors:
    """One FedAdagrad step: divides by the root of the sum of squares. Arguments: see `adam`."""
    return _adapt(
        parameters, update, moments, lambda old, square: old + square, learning_rate, beta1, tau
    )


def adam(
    parameters: Tensors,
    update: Tensors,
    moments: Moments,
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> Tensors:
    """One FedAdam step with bias correction.

    The correction is Kingma and Ba's (2015), counted as Flower's FedAdam counts it, from two, so
    that both give the same numbers.

    Args:
        parameters: current global parameters.
        update: averaged update, same names and shapes.
        moments: empty before the first step.
        learning_rate: server learning rate (eta), in units of the parameters.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity, added to the root of the second moment.
    """
    count = moments.num_steps + 2
    rate = learning_rate * np.sqrt(1 - beta2**count) / (1 - beta1**count)
    return _adapt(
        parameters, update, moments, lambda old, new: _decay(old, new, beta2), rate, beta1, tau
    )


def yogi(
    parameters: Tensors,
    update: Tensors,
    moments: Moments,
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> Tensors:
    """One FedYogi step: the second moment moves by a step of its own. Arguments: see `adam`."""
    gain = np.float32(1 - beta2)

    def second(old: NDArray[np.float32], square: NDArray[np.float32]) -> NDArray[np.float32]:
        new: NDArray[np.float32] = old - gain * square * np.sign(old - square)
        return new

    return _adapt(parameters, update, moments, second, learning_rate, beta1, tau)


def _adapt(
    parameters: Tensors,
    update: Tensors,
    moments: Moments,
    second: _Second,
    rate: float,
    beta1: float,
    tau: float,
) -> Tensors:
    """A step by the first moment over the root of the second, which `second` renews."""
    moments.num_steps += 1
    moved: Tensors = {}
    for name, value in parameters.items():
        nothing, delta = np.zeros_like(value), update[name]
        moments.first[name] = _decay(moments.first.get(name, nothing), delta, beta1)
        moments.second[name] = second(moments.second.get(name, nothing), delta * delta)
        scale: NDArray[np.float32] = np.sqrt(moments.second[name]) + np.float32(tau)
        moved[name] = value + np.float32(rate) * moments.first[name] / scale
    return moved


def _decay(old: NDArray[np.float32], new: NDArray[np.float32], beta: float) -> NDArray[np.float32]:
    """Exponential moving average, float32 throughout."""
    return np.float32(beta) * old + np.float32(1 - beta) * new
