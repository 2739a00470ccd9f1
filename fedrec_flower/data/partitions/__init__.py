"""Partitions: which client holds the data of which users."""

from fedrec_flower.data.partitions.base import Partitioner
from fedrec_flower.data.partitions.cross_device import Single, User
from fedrec_flower.data.partitions.cross_silo import (
    SiloAttribute,
    SiloDirichlet,
    SiloQuantity,
    SiloRandom,
)

__all__ = [
    "Partitioner",
    "SiloAttribute",
    "SiloDirichlet",
    "SiloQuantity",
    "SiloRandom",
    "Single",
    "User",
]
