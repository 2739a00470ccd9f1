"""Server optimizers: how the averaged update moves the global parameters.

The averaged update is the negative pseudo-gradient. All arithmetic is float32.

Source: Reddi et al. 2021, Algorithm 2 (`Adagrad`, `Adam`, `Yogi`); Hsu et al. 2019 (`Momentum`).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import sqrt
from typing import Annotated, Literal

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedrec_flower.core.ranges import NonNegativeFloat, PositiveFloat
from fedrec_flower.core.types import Arrays, Float32Array, Tensors

Decay = Annotated[float, Field(ge=0, lt=1)]
Name = Literal["fedavg", "fedavgm", "fedadagrad", "fedadam", "fedyogi"]


@dataclass
class ServerOptimizer(ABC):
    """Moves the global parameters by the averaged update; the base of all server optimizers.

    Attributes:
        learning_rate: server learning rate, not negative.
        first: moving average of the updates (`Momentum`: their decayed sum), by parameter.
        second: accumulated squares of the updates, by parameter.
        num_steps: number of steps taken.
    """

    learning_rate: float
    first: Tensors = field(init=False, default_factory=dict)
    second: Tensors = field(init=False, default_factory=dict)
    num_steps: int = field(init=False, default=0)

    @classmethod
    def from_settings(
        cls,
        server_optimizer: Name,
        server_learning_rate: NonNegativeFloat,
        beta1: Decay,
        beta2: Decay,
        tau: PositiveFloat,
    ) -> "ServerOptimizer":
        """Build the optimizer that a strategy's configuration names.

        Args:
            server_optimizer: "fedavg" averages; the others are named after the strategy that
                uses the optimizer.
            server_learning_rate: server learning rate.
            beta1: decay of the first moment, in [0, 1); the momentum of "fedavgm".
            beta2: decay of the second moment, in [0, 1); used by "fedadam" and "fedyogi".
            tau: floor of the denominator, in units of the parameters, above 0.
        """
        rate = server_learning_rate
        if server_optimizer == "fedavg":
            return Average(rate)
        if server_optimizer == "fedavgm":
            return Momentum(rate, beta1)
        if server_optimizer == "fedadagrad":
            return Adagrad(rate, beta1, tau)
        if server_optimizer == "fedadam":
            return Adam(rate, beta1, tau, beta2)
        return Yogi(rate, beta1, tau, beta2)

    @abstractmethod
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The global parameters after one step.

        Args:
            parameters: the global parameters; not changed.
            update: the averaged update, same names and shapes; not changed.
        """

    def state(self) -> Arrays:
        """The moments by flat names such as "first/item_bias.weight"; empty before a step."""
        if not self.num_steps:
            return {}
        first = {f"first/{name}": value for name, value in self.first.items()}
        second = {f"second/{name}": value for name, value in self.second.items()}
        return {**first, **second, "num_steps": np.array(self.num_steps)}

    def restore(self, state: Arrays) -> None:
        """Replace the moments by those of a `state`."""
        self.first = with_prefix(state, "first/")
        self.second = with_prefix(state, "second/")
        self.num_steps = int(state.get("num_steps", 0))


@dataclass
class Average(ServerOptimizer):
    """FedAvg: parameters + rate * update. Rate 1 is the textbook's, with rate 0 all stay."""

    @override
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        rate = np.float32(self.learning_rate)
        return {name: value + rate * update[name] for name, value in parameters.items()}


@dataclass
class Momentum(ServerOptimizer):
    """FedAvgM: a step by the decayed sum of all updates; with momentum 0 it is FedAvg.

    Attributes:
        momentum: decay of the sum, in [0, 1).
    """

    momentum: float

    @override
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        self.num_steps += 1
        rate = np.float32(self.learning_rate)
        moved: Tensors = {}
        for name, value in parameters.items():
            before = self.first.get(name, np.float32(0))
            self.first[name] = np.float32(self.momentum) * before + update[name]
            moved[name] = value + rate * self.first[name]
        return moved


@dataclass
class AdaptiveOptimizer(ServerOptimizer):
    """parameters + rate * first / (sqrt(second) + tau): the base of Adagrad, Adam and Yogi.

    Attributes:
        beta1: decay of the first moment, in [0, 1).
        tau: floor of the denominator, in units of the parameters, above 0.
    """

    beta1: float
    tau: float

    @abstractmethod
    def next_second(self, second: Float32Array, square: Float32Array) -> Float32Array:
        """The second moment after an update whose elementwise square is `square`."""

    def rate(self) -> float:
        """The step size of the next step."""
        return self.learning_rate

    @override
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        rate = np.float32(self.rate())
        self.num_steps += 1
        moved: Tensors = {}
        for name, value in parameters.items():
            zero = np.zeros_like(value)
            delta = update[name]
            first = _moving_average(self.first.get(name, zero), delta, self.beta1)
            second = self.next_second(self.second.get(name, zero), delta * delta)
            scale: Float32Array = np.sqrt(second) + np.float32(self.tau)
            moved[name] = value + rate * first / scale
            self.first[name] = first
            self.second[name] = second
        return moved


@dataclass
class Adagrad(AdaptiveOptimizer):
    """FedAdagrad: the second moment is the sum of the squared updates."""

    @override
    def next_second(self, second: Float32Array, square: Float32Array) -> Float32Array:
        return second + square


@dataclass
class Adam(AdaptiveOptimizer):
    """FedAdam with bias correction.

    The correction is Kingma and Ba's (2015), counted from two as in Flower's FedAdam, so that
    both give the same numbers.

    Attributes:
        beta2: decay of the second moment, in [0, 1).
    """

    beta2: float

    @override
    def rate(self) -> float:
        count = self.num_steps + 2
        return self.learning_rate * sqrt(1 - self.beta2**count) / (1 - self.beta1**count)

    @override
    def next_second(self, second: Float32Array, square: Float32Array) -> Float32Array:
        return _moving_average(second, square, self.beta2)


@dataclass
class Yogi(AdaptiveOptimizer):
    """FedYogi: the second moment moves towards the squared update by an amount of its size.

    Attributes:
        beta2: decay of the second moment, in [0, 1).
    """

    beta2: float

    @override
    def next_second(self, second: Float32Array, square: Float32Array) -> Float32Array:
        gain = np.float32(1 - self.beta2)
        new: Float32Array = second - gain * square * np.sign(second - square)
        return new


def _moving_average(old: Float32Array, new: Float32Array, decay: float) -> Float32Array:
    """Decay * old + (1 - decay) * new."""
    return np.float32(decay) * old + np.float32(1 - decay) * new


def with_prefix(state: Arrays, prefix: str) -> Tensors:
    """The entries whose name begins with a prefix, by the rest of the name."""
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}
