"""Which clients are asked."""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import generator
from fedrec_flower.federation.server.plan import Plan


def sample_clients(
    plan: Plan, role: str, round_: int, size: int, attempt: int = 0
) -> NDArray[np.int64]:
    """Distinct client codes, ascending; the same for any engine and any number of nodes."""
    rng = generator(plan.seed, role, round_, attempt)
    return np.sort(rng.choice(plan.num_clients, size, replace=False))
