"""How long clients take to reply, on a clock that is simulated: no one waits, and seeds repeat it.

The unit of time is what a device of median speed takes to learn from one interaction.
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.faults.chance import normal


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
