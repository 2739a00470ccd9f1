"""Reading a node's reply, which may be anything at all.

What a node tells of its clients' training: one sum, or every update by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fedrec_flower.communication.failures import FAILED
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT, Updates, UpdateSum

Content = TypeVar("Content")

Arrays = dict[str, NDArray[Any]]

_NUMBERS = "fiu"  # numpy's kinds: floats and integers


class UnsoundError(Exception):
    """A reply that cannot be used; says why, as "kind: detail"."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a node says of the training of its clients.

    Attributes:
        weight: sum of the weights of the clients that replied.
        loss: sum of their weighted mean training losses.
        bytes_up: sum of the bytes that each client would send if it were alone.
        replied: how many clients replied.
        arrays: what travels, by name; see `client.answer.Answer.arrays`.
        num_rows: see `aggregation.add_packed`.
        lost: why the other clients did not reply soundly, by client code.
    """

    weight: float
    loss: float
    bytes_up: int
    replied: int
    arrays: Arrays
    num_rows: dict[str, int]
    lost: dict[int, str]


def read(message: Message) -> Reply:
    """Take a training reply apart.

    Raises:
        UnsoundError: if the node failed, or the reply is not made like one.
    """
    return opened(message, _taken_apart)


def opened(message: Message, take_apart: Callable[[RecordDict], Content]) -> Content:
    """What is in a message, if it is there.

    Args:
        message: a reply of a node.
        take_apart: gives what is expected of its content; may raise anything.

    Raises:
        UnsoundError: if the node failed, or `take_apart` did.
    """
    if message.has_error():
        said = without_wrapping(message.error.reason or "it gave no reason")
        raise UnsoundError(f"{FAILED}: {said}")
    try:
        return take_apart(message.content)
    except KeyError as error:
        raise UnsoundError(f"malformed: it lacks {error}") from error
    except Exception as error:  # a stranger's bytes may do anything to a reader
        raise UnsoundError(f"malformed: {error}") from error


def _taken_apart(content: RecordDict) -> Reply:
    metrics: Any = content.metric_records["metrics"]
    lost: Any = content.config_records["lost"]
    num_rows: Any = content.config_records["num_rows"]
    received = content.array_records["update"]
    return Reply(
        weight=float(metrics["num_examples"]),
        loss=float(metrics["loss"]),
        bytes_up=int(metrics["bytes_up"]),
        replied=int(metrics["replied"]),
        arrays={name: _numbers(name, array.numpy()) for name, array in received.items()},
        num_rows={name: int(count) for name, count in num_rows.items()},
        lost={
            int(client): str(reason)
            for client, reason in zip(lost["clients"], lost["reasons"], strict=True)
        },
    )


def _numbers(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in _NUMBERS:
        raise TypeError(f"{name} holds no numbers")
    return array


def without_wrapping(text: str) -> str:
    """A node's sentence without what Flower puts around it."""
    return text.rpartition("Message: ")[2].removesuffix("'>").strip()


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
