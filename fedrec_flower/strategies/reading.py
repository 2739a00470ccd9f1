"""Reading a node's reply, which may be anything at all."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from fedrec_flower.strategies.losing import FAILED

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
