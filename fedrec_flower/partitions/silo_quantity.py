"""Silos whose sizes follow a power law: a few hospitals are large, most are small.

Source: Li et al. 2022, "Federated learning on non-IID data silos" (quantity skew; there the
sizes come from a Dirichlet draw, here from Zipf's law, so that they are the same for
every seed).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.errors import ConfigError
from fedrec_flower.interactions import Interactions, Partition, Split
from fedrec_flower.partitions.silos import deal, require_silos, silos
from fedrec_flower.seeding import generator


@dataclass(frozen=True, slots=True)
class SiloQuantity:
    """Deal the users at random over clients of unequal size.

    Attributes:
        num_clients: number of silos.
        exponent: silo i (from 1) has a share of users near i ** -exponent; 0 gives equal silos.

    Raises:
        ConfigError: if the exponent is negative or not finite.
    """

    num_clients: int
    exponent: float

    def __post_init__(self) -> None:
        if not 0 <= self.exponent < np.inf:
            raise ConfigError(
                f"partition.exponent={self.exponent} is impossible: choose 0 (equal silos) or above"
            )

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client; `split` is unused, the seed decides who, not how many.

        Raises:
            ConfigError: if there is no client, or there are more clients than users.
        """
        del split
        require_silos(self.num_clients, interactions.num_users)
        weights = np.arange(1, self.num_clients + 1, dtype=np.float64) ** -self.exponent
        sizes = _apportion(interactions.num_users, weights)
        return silos(deal(sizes, generator(seed, "partition")), self.num_clients)


def _apportion(num_users: int, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Sizes near `weights` (num_clients,) that sum to `num_users`: one each, rest by weight.

    Fractions of a user go to the largest fractions first (largest remainder method).
    """
    rest = num_users - len(weights)
    quota = rest * weights / weights.sum()
    sizes: NDArray[np.int64] = np.floor(quota).astype(np.int64)
    left = rest - sizes.sum()
    sizes[np.argsort(sizes - quota, kind="stable")[:left]] += 1
    return sizes + 1
