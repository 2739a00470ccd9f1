"""A world in which nothing goes wrong, and the shape of every other one."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Tensors, Updates
from fedrec_flower.prepared import ClientData


@dataclass(frozen=True, slots=True)
class Odd:
    """A reply that has not the layout of the others, or that came again.

    Attributes:
        client: whose it is.
        weight: the weight it claims.
        tensors: what it sends, by name.
        again: whether the client has already replied.
    """

    client: int
    weight: float
    tensors: Tensors
    again: bool


class NoFaults:
    """`faults=none`: everyone is there, in time, sound and honest."""

    @property
    def only_absences(self) -> bool:
        """Whether clients may be absent and nothing worse happens."""
        return True

    @property
    def tells_activity(self) -> bool:
        """Whether who replies hangs on how much a client has."""
        return False

    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, str]:
        """Who of a cohort will not reply, and why; such a client keeps nothing of the round.

        Args:
            clients: codes of the cohort, or of a node's part of it: the answer for a client does
                not depend on the others.
            round_: the round.
            attempt: how often the round was tried before.
        """
        del clients, round_, attempt
        return {}

    def tamper(self, data: ClientData, round_: int) -> ClientData:
        """What a client really trains on."""
        del round_
        return data

    def late(
        self,
        clients: NDArray[np.int64],
        num_examples: NDArray[np.int64],
        round_: int,
        attempt: int,
    ) -> dict[int, str]:
        """Who trains and replies too late, and why.

        Args:
            clients: int64 (num_clients,), codes of clients that trained.
            num_examples: int64 (num_clients,), interactions each trained on.
            round_: the round.
            attempt: how often the round was tried before.
        """
        del clients, num_examples, round_, attempt
        return {}

    def spoil(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[Odd]]:
        """What really arrives of the clients' updates.

        Args:
            updates: what honest, sound clients send.
            tables: names of the parameters with a row per item.
            round_: the round.
            attempt: how often the round was tried before.

        Returns:
            Updates of the right layout, and replies of another.
        """
        del tables, round_, attempt
        return updates, []
