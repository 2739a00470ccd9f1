"""Partitions: which client holds the data of which users."""

from typing import Protocol

from fedrec_flower.data.interactions import Interactions, Partition, Split


class Partitioner(Protocol):
    """What every class named by a `conf/partition/*.yaml` offers."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Give each user a client; the same seed gives the same clients."""
        ...
