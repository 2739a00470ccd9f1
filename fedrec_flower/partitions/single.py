"""All users in one client: centralised training, the ceiling of every federation."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.interactions import Interactions, Partition, Split


@dataclass(frozen=True, slots=True)
class Single:
    """Put all users into one client."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user client 0; `split` and `seed` are unused, nothing is drawn."""
        del split, seed
        clients = np.zeros(interactions.num_users, dtype=np.int32)
        return Partition(clients, np.array(["all users"]))
