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
    """One FedAdam step, without bias correction, as in the paper; the state changes in place.

    Args:
        parameters: current global parameters.
        update: averaged update, same names and shapes.
        state: moments; a first call fills them.
        learning_rate: server learning rate (eta).
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: adaptivity, added to the root of the second moment; the moment starts at tau**2.
    """
    moved: Tensors = {}
    for name, value in parameters.items():
        delta = update[name]
        first = _decay(state.first.get(name, np.zeros_like(value)), delta, beta1)
        start = np.full_like(value, tau**2)
        second = _decay(state.second.get(name, start), delta * delta, beta2)
        state.first[name], state.second[name] = first, second
        scale: NDArray[np.float32] = np.sqrt(second) + np.float32(tau)
        moved[name] = value + np.float32(learning_rate) * first / scale
    return moved


def _decay(old: NDArray[np.float32], new: NDArray[np.float32], beta: float) -> NDArray[np.float32]:
    """Exponential moving average, float32 throughout."""
    return np.float32(beta) * old + np.float32(1 - beta) * new
