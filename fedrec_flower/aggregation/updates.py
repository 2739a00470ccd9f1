"""What clients send: their updates, laid out flat, one client after another."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]

# Beside stacked tensors: how they are laid out, as messages name it.
LAYOUT = ("stacked/clients", "stacked/weights", "stacked/offsets", "stacked/rows", "stacked/loss")


@dataclass(frozen=True, slots=True)
class Updates:
    """What several clients may send, one client after another.

    Attributes:
        clients: int64 (num_clients,), their codes.
        weights: float64 (num_clients,), shares in the average; here `num_examples`.
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        rows: int64 (num_rows,), the item rows each touched, ascending within a client.
        tensors: new minus global value of each shared parameter; a table with a row per item
            has shape (num_rows, ...), anything else one copy per client, (num_clients, ...).
    """

    clients: NDArray[np.int64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    tensors: Tensors

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """float64 (num_rows,): the weight of the client that touched the row."""
        return np.repeat(self.weights, np.diff(self.offsets))

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64 (num_rows,): the place of the client that touched the row."""
        return np.repeat(np.arange(len(self.clients)), np.diff(self.offsets))

    def select(self, places: NDArray[np.int64], tables: Collection[str]) -> Self:
        """Some of the clients, in the order given; `tables` names what has a row per item."""
        sizes = np.diff(self.offsets)[places]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        rows = np.repeat(self.offsets[places], sizes) + within
        tensors = {n: array[rows if n in tables else places] for n, array in self.tensors.items()}
        return type(self)(
            self.clients[places], self.weights[places], offsets, self.rows[rows], tensors
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """The clients of several parts, one part after another; at least one part."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.clients for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate([part.rows for part in parts]),
            {n: np.concatenate([part.tensors[n] for part in parts]) for n in parts[0].tensors},
        )
