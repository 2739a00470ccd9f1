"""Packing and unpacking the messages between server and nodes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid

from fedrec_flower.aggregation import ROW_WEIGHT, Sums, UpdateSum, add_packed
from fedrec_flower.errors import TrainingError
from fedrec_flower.evaluation import MetricSums
from fedrec_flower.interactions import Part
from fedrec_flower.models.base import Tensors


@dataclass(frozen=True, slots=True)
class Hosts:
    """Which node hosts which clients.

    Attributes:
        clients: the clients of each node id.
    """

    clients: Mapping[int, range]

    @classmethod
    def discover(cls, grid: Grid, job: str, timeout: float) -> "Hosts":
        """Ask every node. Node ids are random, so nothing else may depend on them."""
        content = RecordDict({"config": ConfigRecord({"job": job})})
        messages = [Message(content, node, "query") for node in grid.get_node_ids()]
        clients = {}
        for reply in checked(grid.send_and_receive(messages, timeout=timeout), len(messages)):
            hosted = reply.content.config_records["hosted"]
            clients[reply.metadata.src_node_id] = range(int(hosted["first"]), int(hosted["stop"]))  # type: ignore[arg-type]  # the client packs integers
        return cls(dict(sorted(clients.items(), key=lambda item: item[1].start)))

    def share(self, cohort: Iterable[int]) -> dict[int, list[int]]:
        """The part of the cohort that each node hosts, possibly none."""
        wanted = np.sort(np.fromiter(cohort, np.int64))
        return {
            node: wanted[(wanted >= hosted.start) & (wanted < hosted.stop)].tolist()
            for node, hosted in self.clients.items()
        }

    def in_order(self, replies: Iterable[Message]) -> list[Message]:
        """Replies sorted by the clients they speak for: float sums need one order."""
        place = {node: hosted.start for node, hosted in self.clients.items()}
        return sorted(replies, key=lambda reply: place[reply.metadata.src_node_id])


def pack(
    kind: str, node: int, parameters: ArrayRecord, config: Mapping[str, Any], round_: int
) -> Message:
    """A message with the global parameters and what to do with them."""
    content = RecordDict({"parameters": parameters, "config": ConfigRecord(dict(config))})
    return Message(content, node, kind, group_id=str(round_))


def to_record(parameters: Tensors) -> ArrayRecord:
    """Parameters as Flower carries them."""
    return ArrayRecord({name: Array(value) for name, value in parameters.items()})


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of the serialized arrays."""
    return sum(len(array.data) for array in record.values())


def checked(replies: Iterable[Message], expected: int) -> list[Message]:
    """The replies, if every node answered and none failed.

    Raises:
        TrainingError: names the node's own error, or how many nodes stayed silent.
    """
    received = list(replies)
    for reply in received:
        if reply.has_error():
            raise TrainingError(
                f"a node failed: {_reason(reply.error.reason or 'it gave no reason')}"
            )
    if len(received) < expected:
        raise TrainingError(f"only {len(received)} of {expected} nodes answered in time")
    return received


def _reason(text: str) -> str:
    """The node's sentence without the wrapping that Flower puts around it."""
    return text.rpartition("Message: ")[2].removesuffix("'>").strip()


def update_sum(replies: Iterable[Message]) -> UpdateSum:
    """The sum of the updates in training replies, added in the order given."""
    total, weight = Sums(), 0.0
    for reply in replies:
        arrays = reply.content.array_records["update"]
        received = {name: array.numpy() for name, array in arrays.items()}
        num_rows: Any = reply.content.config_records["num_rows"]  # integers, as the client packs
        add_packed(total, received, num_rows)
        weight += float(metrics_of(reply)["num_examples"])
    row_weight = total.pop(ROW_WEIGHT, np.zeros(0))
    return UpdateSum(total, weight, row_weight)


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
