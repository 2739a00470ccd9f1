"""Silos by an attribute of the users, such as occupation or gender: a natural non-IID split."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedrec_flower.errors import ConfigError
from fedrec_flower.interactions import Interactions, Partition, Split


@dataclass(frozen=True, slots=True)
class SiloAttribute:
    """Make one client per value of a user attribute.

    Attributes:
        attribute: a column of the user table. Users without a value share the client "unknown".
    """

    attribute: str

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user the client of its value; clients are named by value and sorted by it.

        Raises:
            ConfigError: if the users have no such attribute; names those they have.
        """
        del split, seed
        codes, values = pd.factorize(self._column(interactions), sort=True)
        names = values.astype(str).to_numpy(dtype=object)
        if (codes < 0).any():
            codes = np.where(codes < 0, len(names), codes)
            names = np.append(names, "unknown")
        return Partition(codes.astype(np.int32), names)

    def _column(self, interactions: Interactions) -> "pd.Series[Any]":
        """The attribute of each user, (num_users,)."""
        if self.attribute not in interactions.users.columns:
            known = ", ".join(map(str, interactions.users.columns)) or "none, use partition=user"
            raise ConfigError(
                f"partition.attribute={self.attribute} is no attribute of the users of "
                f"{interactions.name}: choose from those they have ({known})"
            )
        return interactions.users[self.attribute]
