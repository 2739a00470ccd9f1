"""Partitions without silos: one client per user (cross-device), or one client for all users."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.data.interactions import Interactions, Partition, Split


@dataclass(frozen=True, slots=True)
class User:
    """One client per user: its code is the user's code, its name the original user id."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to its own client. `split` and `seed` are unused: no random draw."""
        del split, seed
        clients = np.arange(interactions.num_users, dtype=np.int32)
        return Partition(clients, interactions.user_ids)


@dataclass(frozen=True, slots=True)
class Single:
    """One client with all users: centralised training, the reference of every federation."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to client 0. `split` and `seed` are unused: no random draw."""
        del split, seed
        clients = np.zeros(interactions.num_users, dtype=np.int32)
        return Partition(clients, np.array(["all users"]))
