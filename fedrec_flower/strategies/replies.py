"""What nodes reply: sorted out, added up, and left out where no honest node would send it."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from flwr.app import Message, MetricRecord
from numpy.typing import NDArray

from fedrec_flower.aggregation import ROW_WEIGHT, Sums, Updates, UpdateSum, add_packed
from fedrec_flower.errors import TrainingError
from fedrec_flower.evaluation import MetricSums
from fedrec_flower.interactions import Part
from fedrec_flower.strategies.expected import Expected, separated
from fedrec_flower.strategies.reading import Reply, UnsoundError, read, without_wrapping

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sound:
    """Training replies that may be used, and what became of the others.

    Attributes:
        replies: at most one of each node that was asked, in the order in which they were.
        lost: by client code why its reply is missing or left out, as "kind: detail".
    """

    replies: list[Reply]
    lost: dict[int, str]

    @classmethod
    def sort_out(
        cls, messages: Iterable[Message], asked: Mapping[int, Sequence[int]], expected: Expected
    ) -> Self:
        """Look at each reply before anything is added up.

        Args:
            messages: what came back.
            asked: the clients that each node was asked to train.
            expected: what a reply of a node looks like.
        """
        sound: dict[int, Reply] = {}
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
                    reply = read(message)
                    expected.check(reply, asked[node])
                    sound[node] = reply
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


def metric_sums(reply: Message) -> dict[Part, MetricSums]:
    """The sums in an evaluation reply, by part."""
    sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    for key, value in metrics_of(reply).items():
        part, _, metric = key.partition("/")
        if metric:
            sums[Part[part.upper()]].put(metric, *value)
    return sums


def metrics_of(reply: Message) -> Mapping[str, Any]:
    """The metric record of a reply."""
    record: MetricRecord = reply.content.metric_records["metrics"]
    return record
