"""What nodes reply: sorted out, added up, and left out where no honest node would send it."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedrec_flower.aggregation import ROW_WEIGHT, Sums, Updates, UpdateSum, add_packed
from fedrec_flower.errors import TrainingError
from fedrec_flower.strategies.expected import separated
from fedrec_flower.strategies.reading import Reply, UnsoundError, without_wrapping

_LOG = logging.getLogger(__name__)


class Said(Protocol):
    """What a node says, whatever it was asked."""

    @property
    def lost(self) -> Mapping[int, str]:
        """Why some of its clients did not reply soundly, by client code."""
        ...


Read = TypeVar("Read", bound=Said)
Told_co = TypeVar("Told_co", bound=Said, covariant=True)


class Expectation(Protocol[Told_co]):
    """What a reply looks like."""

    def heard(self, message: Message, clients: Sequence[int]) -> Told_co:
        """What a node says of the clients that it was asked about; an UnsoundError says why not."""
        ...


@dataclass(frozen=True, slots=True)
class Sound(Generic[Read]):
    """Replies that may be used, and what became of the others.

    Attributes:
        replies: at most one of each node that was asked, in the order in which they were.
        lost: by client code why its reply is missing or left out, as "kind: detail".
    """

    replies: list[Read]
    lost: dict[int, str]

    @classmethod
    def sort_out(
        cls,
        messages: Iterable[Message],
        asked: Mapping[int, Sequence[int]],
        expected: Expectation[Read],
    ) -> "Sound[Read]":
        """Look at each reply before anything is added up.

        Args:
            messages: what came back.
            asked: the clients that each node was asked about.
            expected: what a reply of a node looks like.
        """
        sound: dict[int, Read] = {}
        repeated: dict[int, str] = {}
        failed = dict.fromkeys(asked, "silent: its node did not answer in time")
        for message in messages:
            node = message.metadata.src_node_id
            if node not in asked:
                _LOG.warning("left out a reply of node %d, which was not asked", node)
            elif node in sound:
                repeated |= dict.fromkeys(asked[node], "repeated: counted once")
            else:
                try:
                    sound[node] = expected.heard(message, asked[node])
                except UnsoundError as verdict:
                    failed[node] = str(verdict)
        lost = repeated
        for node, clients in asked.items():
            lost |= sound[node].lost if node in sound else dict.fromkeys(clients, failed[node])
        return cls([sound[node] for node in asked if node in sound], lost)


def checked(replies: Iterable[Message], expected: int) -> list[Message]:
    """The replies, if every node answered and none failed.

    Raises:
        TrainingError: names the node's own error, or how many nodes stayed silent.
    """
    received = list(replies)
    for reply in received:
        if reply.has_error():
            said = without_wrapping(reply.error.reason or "it gave no reason")
            raise TrainingError(f"a node failed: {said}")
    if len(received) < expected:
        raise TrainingError(f"only {len(received)} of {expected} nodes answered in time")
    return received


def update_sum(replies: Iterable[Reply]) -> UpdateSum:
    """The sum of the updates in training replies, added in the order given."""
    total, weight = Sums(), 0.0
    for reply in replies:
        add_packed(total, reply.arrays, reply.num_rows)
        weight += reply.weight
    row_weight = total.pop(ROW_WEIGHT, np.zeros(0))
    return UpdateSum(total, weight, row_weight)


def each_update(
    replies: Iterable[Reply], tables: Collection[str]
) -> tuple[Updates, NDArray[np.float64]]:
    """Every update by itself, ascending by client, and the clients' mean training losses.

    Args:
        replies: at least one with updates.
        tables: names of the parameters with a row per item.
    """
    parts = [separated(reply) for reply in replies if reply.arrays]
    updates = Updates.joined([part for part, _ in parts])
    losses = np.concatenate([loss for _, loss in parts])
    order = np.argsort(updates.clients)  # nodes train the largest clients first
    return updates.select(order, tables), losses[order]
