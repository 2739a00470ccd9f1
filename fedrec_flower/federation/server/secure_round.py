"""A round of secure aggregation on the wire: four exchanges, of which one sum comes out.

The server's code path holds what `secure_aggregation.Coordinator` holds and no node's vector in
clear. Whatever it hears is checked like any reply: a node that stays silent, fails or talks
nonsense has dropped out.
"""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.serverapp import Grid

from fedrec_flower.communication.secure_aggregation.messages import (
    Contribution,
    PublicKeys,
    Revealed,
)
from fedrec_flower.communication.secure_aggregation.quantization import vector_length
from fedrec_flower.communication.secure_aggregation.secagg import NoSecureAggregation, SecAgg
from fedrec_flower.communication.secure_aggregation.server import TooFewClientsError, TooFewError
from fedrec_flower.communication.train_reply import Reply, UnsoundError, opened
from fedrec_flower.communication.validation import Expected, Sound
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.updates import ROW_WEIGHT
from fedrec_flower.federation.server.dispatch import Post

_LOG = logging.getLogger(__name__)

_KIND = "train.masked"  # the action of `client.masking`

Heard = TypeVar("Heard")


def gather(
    secure: SecAgg | NoSecureAggregation,
    grid: Grid,
    asked: Sequence[Message],
    post: Post,
    expected: Expected,
    least: float,
) -> Sound[Reply]:
    """Ask the nodes to train, and hear what may be used of their replies.

    Args:
        secure: whether the server may see each node's sum.
        grid: carries messages to the nodes.
        asked: the requests to train, one per node.
        post: knows whom each node was asked about.
        expected: what a reply looks like; under secure aggregation, what the sum of all does.
        least: number of clients that must reply soundly. Under secure aggregation no sum over
            fewer is unmasked: one that was thrown away would be known all the same.
    """
    if isinstance(secure, SecAgg):
        return Session(secure, grid, asked, post, expected, least).collect()
    replies = post.exchange(grid, asked)
    return Sound.sort_out(replies, post.asked, expected)


class Session:
    """One masked round; arguments as for `gather`.

    Members of the protocol are nodes, in the order in which they are asked.
    """

    def __init__(
        self,
        settings: SecAgg,
        grid: Grid,
        asked: Sequence[Message],
        post: Post,
        expected: Expected,
        least: float,
    ) -> None:
        self._settings, self._grid, self._expected = settings, grid, expected
        self._least = least
        self._asked, self._post, self._id = list(asked), post, uuid4().hex
        self._nodes = [message.metadata.dst_node_id for message in asked]
        self._clients = [post.asked[node] for node in self._nodes]
        self._coordinator = settings.coordinator(len(self._nodes))
        self._lost: dict[int, str] = {}
        self._bytes_up = 0
        if any(_config(message)["versions"] for message in asked):
            raise ConfigError(
                "secure_aggregation=secagg adds up updates of one model, but clients are given "
                "several: choose another strategy, or secure_aggregation=none"
            )

    def collect(self) -> Sound[Reply]:
        """The sum over all nodes that stayed, as the reply of one; nothing if too few did.

        Whether the round counts is decided before shares are asked for. If the sum cannot be used
        after that, its clients do not answer the round again: see `client.masking`.
        """
        try:
            reply = self._sum()
            self._expected.check(reply, self._clients_of(self._coordinator.masked))
        except (TooFewError, UnsoundError) as verdict:
            kind = f"{verdict.kind}: " if isinstance(verdict, TooFewError) else ""
            everyone = self._clients_of(range(len(self._nodes)))
            return Sound([], dict.fromkeys(everyone, f"{kind}{verdict}") | self._lost)
        alone = set(range(len(self._nodes))) - self._coordinator.masked
        unheard = dict.fromkeys(self._clients_of(alone), "too_few_nodes: around its own")
        return Sound([reply], unheard | self._lost)

    def _sum(self) -> Reply:
        coordinator = self._coordinator
        self._require_enough(self._cohort)
        everyone = range(len(self._nodes))
        begin = {"stage": "advertise", "threshold": coordinator.threshold}
        heard = self._exchange({place: begin | {"place": place} for place in everyone}, _keys)
        for_neighbours = coordinator.advertised(heard)
        sent = self._exchange({m: _share(keys) for m, keys in for_neighbours.items()}, _ciphertexts)
        carried = coordinator.shared(sent)
        about = {"stage": "mask", "cohort": self._cohort, "rows": self._expected.rows}
        boxes = {m: about | _places(box) for m, box in carried.items()}
        wanted = coordinator.add(self._exchange(boxes, self._contribution).items())
        self._require_enough(coordinator.num_clients)
        asked = {
            member: {
                "stage": "unmask",
                "survivors": sorted(shares.survivors),
                "dropouts": sorted(shares.dropouts),
                "places": list(shares.clients),
                "clients": list(shares.clients.values()),
                "tags": list(shares.tags.values()),
            }
            for member, shares in wanted.items()
        }
        lost = dict(self._lost)
        vector = coordinator.unmask(self._exchange(asked, _revealed))
        self._lost = lost  # who fell silent only now is in the sum
        return self._reply(vector)

    def _require_enough(self, replied: int) -> None:
        least = max(self._least, self._settings.min_clients)
        if replied < least:
            raise TooFewClientsError(f"{replied} clients are left, and a sum needs {least:g}")

    def _reply(self, vector: Any) -> Reply:
        shapes, num_rows = self._expected.shapes, self._num_rows
        found = self._settings.decoded(vector, self._cohort, shapes, num_rows)
        if found.clipped:
            _LOG.warning(
                "%d values lay beyond secure_aggregation.clip_range=%g and were clipped: raise it, "
                "or lower the learning rates",
                found.clipped,
                self._settings.clip_range,
            )
        if found.replied != self._coordinator.num_clients:
            raise UnsoundError(
                f"malformed: a sum over {found.replied} clients, not the "
                f"{self._coordinator.num_clients} that its nodes speak for"
            )
        told = set(self._clients_of(self._coordinator.masked))
        return Reply(
            weight=found.total.weight,
            loss=float("nan") if self._expected.statistics else found.loss,
            bytes_up=self._bytes_up,
            replied=found.replied,
            arrays={**found.total.tensors, ROW_WEIGHT: found.total.row_weight},
            num_rows={},
            lost={client: why for client, why in self._lost.items() if client in told},
        )

    @property
    def _cohort(self) -> int:
        return sum(map(len, self._clients))

    @property
    def _num_rows(self) -> int:
        return self._expected.num_items if self._expected.rows else 0

    # --- one exchange -----------------------------------------------------------------------

    def _exchange(
        self, requests: Mapping[int, Mapping[str, Any]], read: Callable[[int, RecordDict], Heard]
    ) -> dict[int, Heard]:
        """Ask members, and hear those that reply soundly; the others' clients are lost."""
        silent = dict.fromkeys(requests, "silent: its node did not answer in time")
        place_of = {self._nodes[place]: place for place in requests}
        messages = [self._message(place, about) for place, about in requests.items()]
        heard: dict[int, Heard] = {}
        for message in self._post.exchange(self._grid, messages):
            place = place_of.get(message.metadata.src_node_id)
            if place is None or place in heard:
                continue
            try:
                heard[place] = opened(message, partial(read, place))
            except UnsoundError as verdict:
                silent[place] = str(verdict)
            else:
                self._bytes_up += _num_bytes(message.content) * len(self._clients[place])
        for place in requests.keys() - heard.keys():
            self._lost |= dict.fromkeys(self._clients[place], silent[place])
        return heard

    def _message(self, place: int, about: Mapping[str, Any]) -> Message:
        """A request of one stage; the one that trains carries what any request to train does."""
        asked = self._asked[place]
        secure = ConfigRecord({**about, "session": self._id})
        if about["stage"] == "mask":
            content = RecordDict({**asked.content, "secure": secure})
        else:
            config = ConfigRecord(self._post.address.fields)
            content = RecordDict({"parameters": ArrayRecord(), "config": config, "secure": secure})
        node, group = self._nodes[place], asked.metadata.group_id
        return self._post.address.message(content, node, _KIND, group)

    def _contribution(self, place: int, content: RecordDict) -> Contribution:
        """A masked vector; the clients that its node says to be lost are noted."""
        vector = content.array_records["masked"]["vector"].numpy()
        length = vector_length(self._expected.shapes, self._num_rows)
        wanted = (self._settings.quantizer(self._cohort).dtype, (length,))
        if (vector.dtype, vector.shape) != wanted:
            raise ValueError(f"a vector of {vector.dtype} {vector.shape}, not {wanted}")
        said: Any = content.config_records["said"]
        lost = {int(c): str(why) for c, why in zip(said["clients"], said["reasons"], strict=True)}
        if not lost.keys() <= set(self._clients[place]):
            raise ValueError("it speaks for clients that were not asked")
        replied, asked = int(said["replied"]), len(self._clients[place])
        if not 0 <= replied <= asked:
            raise ValueError(f"it speaks for {replied} clients, and {asked} were asked")
        part = Contribution(vector, replied, _by_place(said["places"], said["tags"]))
        self._lost |= lost
        return part

    def _clients_of(self, members: Iterable[int]) -> list[int]:
        return [client for member in sorted(members) for client in self._clients[member]]


def _config(message: Message) -> Mapping[str, Any]:
    record: Mapping[str, Any] = message.content.config_records["config"]
    return record


def _share(keys: Mapping[int, PublicKeys]) -> dict[str, Any]:
    return {
        "stage": "share",
        "places": list(keys),
        "encryption": [pair.encryption for pair in keys.values()],
        "masking": [pair.masking for pair in keys.values()],
    }


def _places(ciphertexts: Mapping[int, bytes]) -> dict[str, Any]:
    return {"places": list(ciphertexts), "values": list(ciphertexts.values())}


def _keys(place: int, content: RecordDict) -> PublicKeys:
    del place
    said: Any = content.config_records["said"]
    return PublicKeys(_bytes(said["encryption"]), _bytes(said["masking"]))


def _ciphertexts(place: int, content: RecordDict) -> dict[int, bytes]:
    del place
    said: Any = content.config_records["said"]
    return _by_place(said["places"], said["values"])


def _revealed(place: int, content: RecordDict) -> Revealed:
    del place
    said: Any = content.config_records["said"]
    return Revealed(
        seeds=_by_place(said["survivors"], said["seeds"]),
        keys=_by_place(said["dropouts"], said["keys"]),
    )


def _by_place(places: Iterable[Any], values: Iterable[Any]) -> dict[int, bytes]:
    return {int(place): _bytes(value) for place, value in zip(places, values, strict=True)}


def _bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} is not bytes")
    return value


def _num_bytes(content: RecordDict) -> int:
    """Bytes of arrays and of byte strings in a message."""
    arrays = [array for record in content.array_records.values() for array in record.values()]
    fields: list[Any] = [v for record in content.config_records.values() for v in record.values()]
    texts = [t for v in fields for t in (v if isinstance(v, list) else [v]) if isinstance(t, bytes)]
    return sum(len(array.data) for array in arrays) + sum(map(len, texts))
