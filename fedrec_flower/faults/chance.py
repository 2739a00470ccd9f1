"""Chance, client by client: what befalls one does not depend on who else is in the cohort."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.seeding import draw, streams

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
