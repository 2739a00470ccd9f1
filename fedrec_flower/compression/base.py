"""What a compression is: a step between a client's update and what the server reads of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import Updates

Tensors = dict[str, NDArray[np.float32]]
RngFor = Callable[[int], np.random.Generator]  # a fresh generator for a client code


class Compression(ABC):
    """Makes each client's message smaller, each by itself: hosting changes nothing.

    `compress` is what a simulation needs, many clients at once. `encode` and `decode` are the
    same thing over a wire: the bytes are counted right and the values are the same to the bit.
    """

    @property
    def remembers(self) -> bool:
        """Whether clients keep what a message lost and add it to their next update."""
        return False

    @abstractmethod
    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, NDArray[np.int64]]:
        """What the server decodes, and what that costs.

        Args:
            updates: of several clients; left unchanged.
            tables: names of the parameters with a row per item.
            rng_for: gives a client's generator, the same one every time it is asked.

        Returns:
            The updates as decoded: same clients, weights and rows. And int64 (num_clients,), the
            bytes of each client's message.
        """

    @abstractmethod
    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """Each client's message; arguments as in `compress`."""

    @abstractmethod
    def decode(
        self, message: bytes, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> tuple[NDArray[np.int64], Tensors]:
        """Read one client's message.

        Args:
            message: from `encode`.
            shapes: of the global parameters, by name, in the order of the updates' tensors.
            tables: names of the parameters with a row per item.

        Returns:
            `Updates.rows` and `Updates.tensors` of this client alone.
        """
