"""Addressing and packing what the server asks of the nodes."""

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

# Among parameters that have several versions, an axis in front: the version that each client is
# given, int64 (num_clients,).
VERSIONS = "versions"

_LOOK = 1.0  # seconds between looks for nodes that have not connected yet
_MARGIN = 60.0  # seconds that a message outlives the wait for its reply


@dataclass(frozen=True, slots=True)
class Hosts:
    """Which node hosts which clients.

    Attributes:
        clients: the clients of each node id.
    """

    clients: Mapping[int, range]

    @classmethod
    def discover(cls, grid: Grid, address: "Address", num_clients: int, patience: float) -> "Hosts":
        """Ask every node which clients it hosts, until all clients have a node.

        Node ids are random, so nothing else may depend on them.

        Args:
            grid: carries the questions.
            address: what every message begins with.
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
            content = address.header.to_record()
            messages = [address.message(content, node, QUERY) for node in new]
            replies = grid.send_and_receive(messages, timeout=address.timeout) if new else ()
            for reply in require_all_replies(replies, len(new)):
                hosted = QueryReply.from_record(reply.content).clients
                clients[reply.metadata.src_node_id] = hosted
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
            sleep(_LOOK)

    def share(self, cohort: Iterable[int]) -> dict[int, list[int]]:
        """The part of the cohort that each node hosts, possibly none."""
        wanted = np.sort(np.fromiter(cohort, np.int64))
        return {
            node: wanted[(wanted >= hosted.start) & (wanted < hosted.stop)].tolist()
            for node, hosted in self.clients.items()
        }


def _missing(hosted: Sequence[range], num_clients: int) -> range:
    """The first clients that no node hosts, possibly none.

    Args:
        hosted: the clients of each node, ascending by the first.
        num_clients: clients of the federation.

    Raises:
        TrainingError: if two nodes host the same client, or a node one that does not exist.
    """
    covered, gap = 0, range(0)
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
    """Parameters as Flower carries them."""
    return ArrayRecord({name: Array(value) for name, value in parameters.items()})


def num_bytes(record: ArrayRecord) -> int:
    """Bytes of the serialized arrays."""
    return sum(len(array.data) for array in record.values())


@dataclass(frozen=True, slots=True)
class Address:
    """What every message to the nodes of one run begins with.

    Attributes:
        job: what every node must know, JSON.
        place: where simulated nodes find their data and keep their files, JSON; empty in a
            deployment, whose nodes know it themselves.
        timeout: seconds after which a node that has not replied is taken for silent.
    """

    job: str
    place: str
    timeout: float

    @property
    def header(self) -> RequestHeader:
        """Fields of every request."""
        return RequestHeader(self.job, self.place)

    def message(self, content: RecordDict, node: int, kind: str, group: str = "") -> Message:
        """A message that Flower keeps for as long as its reply is waited for."""
        return Message(content, node, kind, ttl=self.timeout + _MARGIN, group_id=group)


@dataclass(slots=True)
class Post:
    """Messages to the nodes of one run.

    Attributes:
        address: what every message begins with.
        hosts: which node hosts which clients.
        asked: the clients that each node was last asked about.
    """

    address: Address
    hosts: Hosts
    asked: dict[int, list[int]] = field(default_factory=dict)
    _serialized: tuple[Tensors, ArrayRecord] = field(default_factory=lambda: ({}, ArrayRecord()))

    def exchange(self, grid: Grid, messages: Iterable[Message]) -> Iterable[Message]:
        """Send messages, and wait for the replies that come in time."""
        return grid.send_and_receive(messages, timeout=self.address.timeout)

    def requests(
        self,
        kind: str,
        clients: NDArray[np.int64],
        parameters: Tensors,
        about: Mapping[str, Any],
        round_: int,
        *,
        everyone: bool = False,
    ) -> Iterator[Message]:
        """Messages that tell nodes what to do, for which of their clients, and from what.

        Args:
            kind: "train" asks the nodes that host some of the clients, "evaluate" all of them: a
                node without a sampled client must keep its snapshot too.
            clients: codes of the clients.
            parameters: the shared parameters, or several versions of them; see `VERSIONS`.
            about: what else to say.
            round_: the round.
            everyone: whether nodes that host none of the clients are asked in any case.
        """
        request_type = {TRAIN: TrainRequest, EVALUATE: EvaluateRequest}[kind]
        self.asked = {}
        for node, hosted in self.hosts.share(clients).items():
            if hosted or everyone or kind == EVALUATE:
                self.asked[node] = hosted
                arrays, versions = self._given(parameters, hosted)
                request = request_type(
                    header=self.address.header,
                    parameters=arrays,
                    clients=hosted,
                    versions=versions,
                    **about,
                )
                yield self.address.message(request.to_record(), node, kind, str(round_))

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
