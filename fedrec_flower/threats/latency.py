"""Simulated latency of client replies; no process waits, and the same seed gives the same times.

The unit of time is the time that a device of median speed needs to train on one interaction.
"""

import numpy as np

from fedrec_flower.core.random import draw, streams
from fedrec_flower.core.types import Float64Array, IndexArray

_UNIT = 2.0**-53  # a float64 has 53 random bits


def uniform(seed: int, role: str, round_: int, clients: IndexArray, counter: int) -> Float64Array:
    """One number in [0, 1) for each client: float64 (num_clients,).

    Args:
        seed: the experiment's seed.
        role: purpose of the draw.
        round_: the round of the draw; 0 if it does not depend on the round.
        clients: int64 (num_clients,), client codes.
        counter: index of the draw, such as the number of earlier attempts of the round.
    """
    bits = draw(streams(seed, role, round_, clients), np.full(len(clients), counter, np.int64))
    return (bits >> np.uint64(11)).astype(np.float64) * _UNIT


def normal(seed: int, role: str, round_: int, clients: IndexArray, counter: int) -> Float64Array:
    """One standard normal number for each client: float64 (num_clients,); see `uniform`.

    Source: Box and Muller 1958.
    """
    radius, angle = (uniform(seed, role, round_, clients, 2 * counter + i) for i in range(2))
    numbers: Float64Array = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return numbers


def latency(
    seed: int,
    clients: IndexArray,
    num_examples: IndexArray,
    round_: int,
    attempt: int,
    spread: float,
) -> Float64Array:
    """Simulated time from the request to a client until its reply.

    The time is the number of interactions, times the slowness of the client's device (the same in
    every round), times its load in this round (drawn again); both factors are log-normal.

    Args:
        seed: the experiment's seed.
        clients: int64 (num_clients,), client codes.
        num_examples: int64 (num_clients,), interactions that each client trains on.
        round_: the round.
        attempt: number of earlier attempts of the round.
        spread: standard deviation of the logarithm of each factor; with 0 all devices are equal.

    Returns:
        float64 (num_clients,), in units of one interaction on a median device.
    """
    device = normal(seed, "device-latency", 0, clients, 0)
    load = normal(seed, "round-latency", round_, clients, attempt)
    slowness: Float64Array = np.exp(spread * (device + load))
    return slowness * num_examples
