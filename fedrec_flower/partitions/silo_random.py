"""Silos of equal size with users at random: every silo looks like the whole (IID)."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.interactions import Interactions, Partition, Split
from fedrec_flower.partitions.silos import deal, require_silos, silos
from fedrec_flower.seeding import generator


@dataclass(frozen=True, slots=True)
class SiloRandom:
    """Deal the users evenly over the clients.

    Attributes:
        num_clients: number of silos; their sizes differ by one user at most.
    """

    num_clients: int

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client; `split` is unused.

        Raises:
            ConfigError: if there is no client, or there are more clients than users.
        """
        del split
        require_silos(self.num_clients, interactions.num_users)
        share, left = divmod(interactions.num_users, self.num_clients)
        sizes = share + (np.arange(self.num_clients) < left)
        return silos(deal(sizes, generator(seed, "partition")), self.num_clients)
