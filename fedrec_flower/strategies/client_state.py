"""What clients keep from round to round beside their parameters: control variates, debts."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Updates


@dataclass(frozen=True, slots=True)
class Keeping:
    """An array per client for everything that clients send, zero before it is first written.

    It lies on the node's disk among the personal parameters, is part of their snapshots and
    appears in no message. Whole tables are kept, of all clients: for `mf` on ML-100K 943 x 1682 x
    128 values of 4 bytes, 812 MB, and as much again in every slot that holds a snapshot.

    Attributes:
        shapes: full shape of what is kept of each client, by name.
        tables: the names of those with a row per item.
        array: opens what is kept under a name: float32 (num_clients, *shape).
    """

    shapes: Mapping[str, tuple[int, ...]]
    tables: frozenset[str]
    array: Callable[[str], NDArray[Any]]

    def read(self, name: str, updates: Updates) -> NDArray[np.float32]:
        """What the clients keep, as a new array laid out like `updates.tensors[name]`.

        Of a table the rows that they touch now.
        """
        return np.array(self.array(name)[self._place(name, updates)])

    def write(self, name: str, updates: Updates, array: NDArray[np.float32]) -> None:
        """Keep what `read` gives from now on; other rows stay as they are."""
        self.array(name)[self._place(name, updates)] = array

    def _place(self, name: str, updates: Updates) -> tuple[NDArray[np.int64], ...]:
        if name in self.tables:
            return updates.clients[updates.owners], updates.rows
        return (updates.clients,)
