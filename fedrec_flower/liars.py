"""Which clients lie: faults and attacks draw them alike."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.seeding import generator


def drawn_liars(seed: int, num_clients: int, share: float) -> NDArray[np.bool_]:
    """Bool (num_clients,): a fixed share of the clients, rounded, the same in every round.

    Args:
        seed: the experiment's seed.
        num_clients: clients of the federation.
        share: of them, from 0 to 1.
    """
    chosen = generator(seed, "attackers").choice(
        num_clients, round(share * num_clients), replace=False
    )
    found: NDArray[np.bool_] = np.isin(np.arange(num_clients), chosen)
    return found
