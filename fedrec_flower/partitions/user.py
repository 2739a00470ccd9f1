"""One client per user: the cross-device setting, where a phone holds its owner's history."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.interactions import Interactions, Partition, Split


@dataclass(frozen=True, slots=True)
class User:
    """Make every user a client; the client's code is the user's, its name the original user id."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client; `split` and `seed` are unused, nothing is drawn."""
        del split, seed
        clients = np.arange(interactions.num_users, dtype=np.int32)
        return Partition(clients, interactions.user_ids)
