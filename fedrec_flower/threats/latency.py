"""How long clients take to reply, on a clock that is simulated: no one waits, and seeds repeat it.

The unit of time is what a device of median speed takes to learn from one interaction.

Chance, client by client: what befalls one does not depend on who else is in the cohort.
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import draw, streams

_WHOLE = 2.0**-53  # a float64 holds 53 random bits


def uniform(
    seed: int, role: str, round_: int, clients: NDArray[np.int64], counter: int
) -> NDArray[np.float64]:
    """One number in [0, 1) for each client: float64 (num_clients,).

    Args:
        seed: the experiment's seed.
        role: what is drawn.
        round_: the round the draw belongs to; 0 when it belongs to none.
        clients: int64 (num_clients,), client codes.
        counter: which draw of its address this is, such as how often the round was tried before.
    """
    bits = draw(streams(seed, role, round_, clients), np.full(len(clients), counter, np.int64))
    return (bits >> np.uint64(11)).astype(np.float64) * _WHOLE


def normal(
    seed: int, role: str, round_: int, clients: NDArray[np.int64], counter: int
) -> NDArray[np.float64]:
    """A standard normal number for each client; arguments as `uniform`.

    Source: Box and Muller 1958.
    """
    radius, angle = (uniform(seed, role, round_, clients, 2 * counter + i) for i in range(2))
    numbers: NDArray[np.float64] = np.sqrt(-2 * np.log1p(-radius)) * np.cos(2 * np.pi * angle)
    return numbers


def latency(
    seed: int,
    clients: NDArray[np.int64],
    num_examples: NDArray[np.int64],
    round_: int,
    attempt: int,
    spread: float,
) -> NDArray[np.float64]:
    """Simulated time from a client's call to its reply.

    Work takes as long as there are interactions, times how slow the client's device is (the same
    in every round), times what else the device is busy with (drawn anew); both are log-normal.

    Args:
        seed: the experiment's seed.
        clients: int64 (num_clients,), their codes.
        num_examples: int64 (num_clients,), interactions each trains on.
        round_: the round.
        attempt: how often the round was tried before.
        spread: standard deviation of the logarithm of either factor; 0: all devices are alike.

    Returns:
        float64 (num_clients,), in interactions that a median device learns from meanwhile.
    """
    device = normal(seed, "device-latency", 0, clients, 0)
    moment = normal(seed, "round-latency", round_, clients, attempt)
    slowness: NDArray[np.float64] = np.exp(spread * (device + moment))
    return slowness * num_examples
