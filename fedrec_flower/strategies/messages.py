"""Addressing and packing what the server asks of the nodes."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.replies import checked

# Among parameters that have several versions, an axis in front: the version that each client is
# given, int64 (num_clients,).
VERSIONS = "versions"


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


def to_record(parameters: Tensors) -> ArrayRecord:
    """Parameters as Flower carries them."""
    return ArrayRecord({name: Array(value) for name, value in parameters.items()})


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of the serialized arrays."""
    return sum(len(array.data) for array in record.values())


@dataclass(slots=True)
class Post:
    """Messages to the nodes of one run.

    Attributes:
        job: what every node must know, JSON.
        hosts: which node hosts which clients.
        timeout: seconds after which a node that has not replied is taken for silent.
        asked: the clients that each node was last asked about.
    """

    job: str
    hosts: Hosts
    timeout: float
    asked: dict[int, list[int]] = field(default_factory=dict)
    _serialized: tuple[Tensors, ArrayRecord] = field(default_factory=lambda: ({}, ArrayRecord()))

    def exchange(self, grid: Grid, messages: Iterable[Message]) -> Iterable[Message]:
        """Send messages, and wait for the replies that come in time."""
        return grid.send_and_receive(messages, timeout=self.timeout)

    def requests(
        self,
        kind: str,
        clients: NDArray[np.int64],
        parameters: Tensors,
        about: Mapping[str, Any],
        round_: int,
    ) -> Iterator[Message]:
        """Messages that tell nodes what to do, for which of their clients, and from what.

        Args:
            kind: "train" asks the nodes that host some of the clients, "evaluate" all of them: a
                node without a sampled client must keep its snapshot too.
            clients: codes of the clients.
            parameters: the shared parameters, or several versions of them; see `VERSIONS`.
            about: what else to say.
            round_: the round.
        """
        self.asked = {}
        for node, hosted in self.hosts.share(clients).items():
            if hosted or kind == "evaluate":
                self.asked[node] = hosted
                arrays, versions = self._given(parameters, hosted)
                config = {"job": self.job, **about, "clients": hosted, "versions": versions}
                content = RecordDict({"parameters": arrays, "config": ConfigRecord(config)})
                yield Message(content, node, kind, group_id=str(round_))

    def _given(self, parameters: Tensors, clients: list[int]) -> tuple[ArrayRecord, list[int]]:
        """The versions that some clients need, and which of them each is given."""
        if VERSIONS not in parameters:
            # The evaluation of a round and the training of the next carry the same parameters.
            if self._serialized[0] is not parameters:
                self._serialized = (parameters, to_record(parameters))
            return self._serialized[1], []
        needed, version = np.unique(parameters[VERSIONS][clients], return_inverse=True)
        several = {n: value[needed] for n, value in parameters.items() if n != VERSIONS}
        return to_record(several), version.tolist()
