"""What a node tells of its clients' training: one sum, or every update by itself."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import LAYOUT, ROW_WEIGHT, Updates, UpdateSum


@dataclass(slots=True)
class Answer:
    """What a node's clients send.

    Attributes:
        total: the weighted sum of their updates, or the sum of their statistics; None if every
            update goes by itself.
        parts: updates by themselves, in pieces; none where there is a sum.
        part_losses: per piece float64 (num_clients,), mean training losses.
        loss: the sum of the clients' weighted mean training losses.
        bytes_up: the sum of the bytes that each client would send if it were alone on its node.
        replied: how many clients replied soundly.
        lost: why the others did not, by client code.
    """

    total: UpdateSum | None = None
    parts: list[Updates] = field(default_factory=list)
    part_losses: list[NDArray[np.float64]] = field(default_factory=list)
    loss: float = 0.0
    bytes_up: int = 0
    replied: int = 0
    lost: dict[int, str] = field(default_factory=dict)

    @property
    def weight(self) -> float:
        """Sum of the weights of the clients that replied."""
        if self.total is not None:
            return self.total.weight
        return float(sum(part.weights.sum() for part in self.parts))

    def arrays(self, names: list[str]) -> list[NDArray[Any]]:
        """What travels, in the order of `array_names`."""
        if self.total is not None:
            sums: list[NDArray[Any]] = [self.total.tensors[n].astype(np.float32) for n in names]
            # Where nothing is shared, nobody need know who touched what.
            return [*sums, self.total.row_weight] if sums else []
        if not self.parts:
            return []
        whole, loss = Updates.joined(self.parts), np.concatenate(self.part_losses)
        layout = [whole.clients, whole.weights, whole.offsets, whole.rows, loss]
        return [*(whole.tensors[name] for name in names), *layout]

    def array_names(self, names: list[str]) -> list[str]:
        """Names of the arrays that travel: the tensors', then what says how they lie."""
        if self.total is not None:
            return [*names, ROW_WEIGHT] if names else []
        return [*names, *LAYOUT] if self.parts else []

    def metrics(self) -> dict[str, Any]:
        """The numbers and words beside the arrays."""
        return {
            "loss": self.loss,
            "bytes_up": self.bytes_up,
            "replied": self.replied,
            "lost": list(self.lost),
            "reasons": list(self.lost.values()),
        }
