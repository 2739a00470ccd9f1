"""Server optimisers: how the averaged update moves the global parameters.

Source: Reddi et al. 2021, Algorithm 2; the averaged update is the negative pseudo-gradient.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]


def average(parameters: Tensors, update: Tensors, learning_rate: float) -> Tensors:
    """Add the averaged update, scaled; a rate of one is FedAvg, of zero changes nothing."""
    rate = np.float32(learning_rate)
    return {name: value + rate * update[name] for name, value in parameters.items()}


@dataclass(slots=True)
class AdamState:
    """First and second moments of the averaged updates, shaped like the parameters."""

    first: Tensors = field(default_factory=dict)
    second: Tensors = field(default_factory=dict)
    num_steps: int = 0


def adam(
    parameters: Tensors,
    update: Tensors,
    state: AdamState,
    *,
    learning_rate: float,
    beta1: float,
    beta2: float,
    tau: float,
) -> Tensors:
    """One FedAdam step with bias correction; the state changes in place.

    The correction is Kingma and Ba's (2015), counted as Flower's FedAdam counts it, from two, so
    that both give the same numbers.

    Args:
        parameters: current global parameters.
        update: averaged update, same names and shapes.
        state: moments; empty before the first step.
        learning_rate: server learning rate (eta), in units of the parameters.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity, added to the root of the second moment.
    """
    state.num_steps += 1
    corrected = np.sqrt(1 - beta2 ** (state.num_steps + 1)) / (1 - beta1 ** (state.num_steps + 1))
    rate = np.float32(learning_rate * corrected)
    moved: Tensors = {}
    for name, value in parameters.items():
        nothing, delta = np.zeros_like(value), update[name]
        state.first[name] = _decay(state.first.get(name, nothing), delta, beta1)
        state.second[name] = _decay(state.second.get(name, nothing), delta * delta, beta2)
        scale: NDArray[np.float32] = np.sqrt(state.second[name]) + np.float32(tau)
        moved[name] = value + rate * state.first[name] / scale
    return moved


def _decay(old: NDArray[np.float32], new: NDArray[np.float32], beta: float) -> NDArray[np.float32]:
    """Exponential moving average, float32 throughout."""
    return np.float32(beta) * old + np.float32(1 - beta) * new
