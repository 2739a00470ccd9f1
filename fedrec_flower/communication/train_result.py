"""Result of training the clients of a node: one aggregated update, or individual updates."""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.packing import pack
from fedrec_flower.communication.schema import TrainReply
from fedrec_flower.core.failures import Failure
from fedrec_flower.core.types import Float64Array
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT, Updates, UpdateSum


@dataclass(slots=True)
class TrainResult:
    """Accumulates the updates of a node's clients.

    Attributes:
        total: weighted sum of the updates, or sum of the statistics; None if individual updates
            are sent.
        parts: individual updates, in pieces; empty if a sum is sent.
        part_losses: float64 (num_clients,) per piece, mean training losses.
        loss: sum of the clients' mean training losses, each times the client's weight.
        bytes_up: sum of the bytes that each client would send if it were alone on its node.
        replied: number of clients with a valid update.
        failures: why the other clients have none, by client code.
    """

    total: UpdateSum | None = None
    parts: list[Updates] = field(default_factory=list)
    part_losses: list[Float64Array] = field(default_factory=list)
    loss: float = 0.0
    bytes_up: int = 0
    replied: int = 0
    failures: dict[int, Failure] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Sum of the weights of the clients that replied."""
        if self.total is not None:
            return self.total.weight
        return float(sum(part.weights.sum() for part in self.parts))

    def arrays(self, names: list[str]) -> list[NDArray[Any]]:
        """Return the arrays to send, in the order of `array_names`.

        Args:
            names: names of the tensors, in the node's message order.
        """
        if self.total is not None:
            sums: list[NDArray[Any]] = [
                self.total.tensors[name].astype(np.float32) for name in names
            ]
            # If no tensor is sent, the server must not learn which rows were touched.
            return [*sums, self.total.row_weight] if sums else []
        if not self.parts:
            return []
        updates = Updates.joined(self.parts)
        losses = np.concatenate(self.part_losses)
        layout = [updates.clients, updates.weights, updates.offsets, updates.rows, losses]
        return [*(updates.tensors[name] for name in names), *layout]

    def array_names(self, names: list[str]) -> list[str]:
        """Return the names of the arrays to send: the tensors, then the row weights or layout."""
        if self.total is not None:
            return [*names, ROW_WEIGHT] if names else []
        return [*names, *LAYOUT] if self.parts else []

    def metrics(self) -> dict[str, Any]:
        """Return the values that a `NumPyClient` sends with the arrays."""
        return {
            "loss": self.loss,
            "bytes_up": self.bytes_up,
            "replied": self.replied,
            "lost": list(self.failures),
            "reasons": [str(failure) for failure in self.failures.values()],
        }

    def reply(self, names: list[str], tables: Collection[str]) -> TrainReply:
        """Return the message to the server.

        Args:
            names: names of the tensors, in the node's message order.
            tables: names of those with a row per item.
        """
        arrays = dict(zip(self.array_names(names), self.arrays(names), strict=True))
        row_arrays = [name for name in arrays if name in {*tables, ROW_WEIGHT}]
        packed, num_rows = pack(arrays, row_arrays)
        return TrainReply(
            weight=self.weight,
            loss=self.loss,
            bytes_up=self.bytes_up,
            replied=self.replied,
            arrays=packed,
            num_rows=num_rows,
            failures=self.failures,
        )
