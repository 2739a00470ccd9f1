"""Interface of partitions."""

from typing import Protocol

from fedrec_flower.data.interactions import Interactions, Partition, Split


class Partitioner(Protocol):
    """Interface of the classes in `conf/partition/*.yaml`."""

    def assign(self, interactions: Interactions, split: Split, seed: int) -> Partition:
        """Assign each user to a client. The same seed gives the same clients."""
        ...
