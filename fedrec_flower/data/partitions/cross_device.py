"""One client per user: the cross-device setting, where a phone holds its owner's history.

All users in one client: centralised training, the ceiling of every federation.
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.data.interactions import Interactions, Partition, Split


@dataclass(frozen=True, slots=True)
class User:
    """Make every user a client; the client's code is the user's, its name the original user id."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client; `split` and `seed` are unused, nothing is drawn."""
        del split, seed
        clients = np.arange(interactions.num_users, dtype=np.int32)
        return Partition(clients, interactions.user_ids)


@dataclass(frozen=True, slots=True)
class Single:
    """Put all users into one client."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user client 0; `split` and `seed` are unused, nothing is drawn."""
        del split, seed
        clients = np.zeros(interactions.num_users, dtype=np.int32)
        return Partition(clients, np.array(["all users"]))
