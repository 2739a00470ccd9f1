"""Addresses and packs the messages from the server to the nodes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec_flower.communication.schema import (
    EVALUATE,
    QUERY,
    TRAIN,
    EvaluateRequest,
    QueryReply,
    RequestHeader,
    TrainRequest,
)
from fedrec_flower.communication.validation import require_all_replies
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.types import Tensors
from fedrec_flower.strategies.base import VERSIONS

_POLL_SECONDS = 1.0  # between looks for nodes that have not connected yet
_TTL_MARGIN_SECONDS = 60.0  # by which a message outlives the wait for its reply


@dataclass(frozen=True, slots=True)
class JobAddress:
    """The fields with which every message to the nodes of one run begins.

    Attributes:
        job: what every node must know, JSON.
        place: where simulated nodes find their data and keep their files, JSON; empty in a
            deployment, whose nodes are configured by their owners.
        timeout: seconds after which a node without a reply counts as silent.
    """

    job: str
    place: str
    timeout: float

    @property
    def header(self) -> RequestHeader:
        """Fields of every request."""
        return RequestHeader(self.job, self.place)

    def message(self, content: RecordDict, node: int, kind: str, group: str = "") -> Message:
        """Make a message that Flower keeps for as long as its reply is awaited."""
        ttl = self.timeout + _TTL_MARGIN_SECONDS
        return Message(content, node, kind, ttl=ttl, group_id=group)


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """Which node hosts which clients.

    Attributes:
        clients: the clients of each node id.
    """

    clients: Mapping[int, range]

    @classmethod
    def discover(
        cls, grid: Grid, address: JobAddress, num_clients: int, patience: float
    ) -> "NodeDirectory":
        """Ask every node which clients it hosts, until every client has a node.

        Node ids are random, so no other result may depend on them.

        Args:
            grid: carries the queries.
            address: the fields with which every message begins.
            num_clients: clients of the federation.
            patience: seconds to wait for nodes that have not connected yet; 0 asks once.

        Raises:
            TrainingError: if a node fails, two nodes host the same client, a node hosts a client
                that does not exist, or some client has no node in time.
        """
        clients: dict[int, range] = {}
        end = monotonic() + patience
        while True:
            new = [node for node in grid.get_node_ids() if node not in clients]
            clients |= _query(grid, address, new)
            clients = dict(sorted(clients.items(), key=lambda item: item[1].start))
            missing = _missing([*clients.values()], num_clients)
            if not missing:
                return cls(clients)
            if monotonic() >= end:
                raise TrainingError(
                    f"no node hosts clients {missing.start} to {missing.stop - 1} of {num_clients} "
                    f"({len(clients)} nodes answered): start the nodes that are missing, with the "
                    "same num-partitions and every partition-id once"
                )
            sleep(_POLL_SECONDS)

    def hosted(self, cohort: Iterable[int]) -> dict[int, list[int]]:
        """Return the clients of the cohort that each node hosts, possibly none."""
        wanted = np.sort(np.fromiter(cohort, np.int64))
        return {
            node: wanted[(wanted >= hosted.start) & (wanted < hosted.stop)].tolist()
            for node, hosted in self.clients.items()
        }


def _query(grid: Grid, address: JobAddress, nodes: Sequence[int]) -> dict[int, range]:
    """Ask nodes which clients they host."""
    if not nodes:
        return {}
    content = address.header.to_record()
    messages = [address.message(content, node, QUERY) for node in nodes]
    replies = grid.send_and_receive(messages, timeout=address.timeout)
    return {
        reply.metadata.src_node_id: QueryReply.from_record(reply.content).clients
        for reply in require_all_replies(replies, len(nodes))
    }


def _missing(hosted: Sequence[range], num_clients: int) -> range:
    """Return the first clients that no node hosts, possibly none.

    Args:
        hosted: the clients of each node, ascending by the first.
        num_clients: clients of the federation.

    Raises:
        TrainingError: if two nodes host the same client, or a node hosts one that does not exist.
    """
    covered = 0
    gap = range(0)
    for clients in hosted:
        if not 0 <= clients.start < clients.stop <= num_clients:
            raise TrainingError(
                f"a node says that it hosts clients {clients.start} to {clients.stop - 1}, and "
                f"there are {num_clients}: give every node the same data and num-partitions"
            )
        if clients.start < covered:
            raise TrainingError(
                f"two nodes host client {clients.start}: give every node a partition-id of its "
                "own and all the same num-partitions"
            )
        if clients.start > covered and not gap:
            gap = range(covered, clients.start)
        covered = clients.stop
    return gap or range(covered, num_clients)


def to_record(parameters: Tensors) -> ArrayRecord:
    """Pack parameters as Flower carries them."""
    return ArrayRecord({name: Array(value) for name, value in parameters.items()})


def num_bytes(record: ArrayRecord) -> int:
    """Return the bytes of the serialized arrays."""
    return sum(len(array.data) for array in record.values())


@dataclass(slots=True)
class Dispatcher:
    """Sends requests to the nodes of one run and collects their replies.

    Attributes:
        grid: carries messages.
        address: the fields with which every message begins.
        nodes: which node hosts which clients.
        asked: the clients for which each node was asked in the last request.
    """

    grid: Grid
    address: JobAddress
    nodes: NodeDirectory
    asked: dict[int, list[int]] = field(default_factory=dict)
    _serialized: tuple[Tensors, ArrayRecord] = field(default_factory=lambda: ({}, ArrayRecord()))

    def exchange(self, messages: Iterable[Message]) -> Iterable[Message]:
        """Send messages and return the replies that arrive in time."""
        return self.grid.send_and_receive(messages, timeout=self.address.timeout)

    def requests(
        self,
        kind: str,
        clients: NDArray[np.int64],
        parameters: Tensors,
        fields: Mapping[str, Any],
        round_: int,
        *,
        all_nodes: bool = False,
    ) -> Iterator[Message]:
        """Make the messages that ask nodes to train or to evaluate clients.

        Args:
            kind: "train" asks the nodes that host some of the clients, "evaluate" asks all nodes:
                a node without a sampled client must keep its snapshot too.
            clients: codes of the clients.
            parameters: the shared parameters, possibly in several `VERSIONS`.
            fields: further fields of the request.
            round_: the round.
            all_nodes: whether nodes that host none of the clients are asked in any case.
        """
        request_type = {TRAIN: TrainRequest, EVALUATE: EvaluateRequest}[kind]
        self.asked = {}
        for node, hosted in self.nodes.hosted(clients).items():
            if hosted or all_nodes or kind == EVALUATE:
                self.asked[node] = hosted
                arrays, versions = self._versions_for(parameters, hosted)
                request = request_type(
                    header=self.address.header,
                    parameters=arrays,
                    clients=hosted,
                    versions=versions,
                    **fields,
                )
                yield self.address.message(request.to_record(), node, kind, str(round_))

    def _versions_for(
        self, parameters: Tensors, clients: list[int]
    ) -> tuple[ArrayRecord, list[int]]:
        """Return the versions that some clients need, and each client's place among them."""
        if VERSIONS not in parameters:
            # The evaluation of a round and the training of the next carry the same parameters.
            if self._serialized[0] is not parameters:
                self._serialized = (parameters, to_record(parameters))
            return self._serialized[1], []
        needed, version = np.unique(parameters[VERSIONS][clients], return_inverse=True)
        several = {n: value[needed] for n, value in parameters.items() if n != VERSIONS}
        return to_record(several), version.tolist()
