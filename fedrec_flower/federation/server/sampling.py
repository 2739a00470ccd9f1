"""Uniform sampling of clients without replacement."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import generator
from fedrec_flower.federation.server.plan import Plan


def sample_clients(
    plan: Plan, role: str, round_: int, size: int, attempt: int = 0
) -> NDArray[np.int64]:
    """Sample distinct clients; the result depends on no transport, node or number of nodes.

    Args:
        plan: the run.
        role: purpose of the sample, such as "cohort"; each role has its own random stream.
        round_: the round.
        size: number of clients to sample.
        attempt: number of earlier attempts at the same round.

    Returns:
        int64 (size,): client codes, ascending.
    """
    rng = generator(plan.seed, role, round_, attempt)
    return np.sort(rng.choice(plan.num_clients, size, replace=False))
