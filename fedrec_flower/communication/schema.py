"""Messages between server and nodes: one dataclass per message, used by both sides.

Requests and replies are `RecordDict`s of Flower. `to_record` writes one and `from_record` reads
one; the names of records and fields occur in this file only. The exchanges of secure aggregation
are in `secure_aggregation.messages`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray

from fedrec_flower.core.failures import Failure
from fedrec_flower.core.types import Arrays
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.metric_sums import MetricSums

# Types of Flower messages.
QUERY = "query"
TRAIN = "train"
EVALUATE = "evaluate"
MASKED_ACTION = "masked"  # the action of a `train` message that belongs to secure aggregation
TRAIN_MASKED = f"{TRAIN}.{MASKED_ACTION}"

EVALUATED_PARTS = (Part.VALIDATION, Part.TEST)

# Names of records.
_CONFIG = "config"
_FAILURES = "lost"
_HOSTED = "hosted"
_METRICS = "metrics"
_NUM_ROWS = "num_rows"
_PARAMETERS = "parameters"
_UPDATE = "update"

_NUMBER_KINDS = "fiu"  # NumPy's kinds of types: floats, signed and unsigned integers


@dataclass(frozen=True, slots=True)
class RequestHeader:
    """Fields of every request of a run.

    Attributes:
        job: facts and settings that every node needs, JSON.
        place: folders of simulated nodes, JSON; empty in a deployment, whose nodes are started
            with their own.
    """

    job: str
    place: str = ""

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the configuration record."""
        if not self.place:
            return {"job": self.job}
        return {"job": self.job, "place": self.place}

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the header of any request."""
        config = read_config(content)
        return cls(config["job"], config.get("place", ""))

    def to_record(self) -> RecordDict:
        """Return the content of a query, which has no other fields."""
        return RecordDict({_CONFIG: ConfigRecord(self.fields)})

    def without_parameters(self) -> RecordDict:
        """Return the content of a request with an empty record of parameters."""
        return RecordDict({_PARAMETERS: ArrayRecord(), _CONFIG: ConfigRecord(self.fields)})


@dataclass(frozen=True, slots=True)
class QueryReply:
    """The clients that a node hosts.

    Attributes:
        clients: client codes; a query reply holds a contiguous range.
    """

    clients: range

    def to_record(self) -> RecordDict:
        """Write the reply."""
        hosted = ConfigRecord({"first": self.clients.start, "stop": self.clients.stop})
        return RecordDict({_HOSTED: hosted})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the reply."""
        hosted: Any = content.config_records[_HOSTED]
        return cls(range(int(hosted["first"]), int(hosted["stop"])))


@dataclass(frozen=True, slots=True)
class Request:
    """Base of the requests that carry parameters.

    Attributes:
        header: fields of every request.
        parameters: shared parameters in the node's message order, or several versions of them.
        clients: codes of the clients that the request is about.
        versions: for each client the version of the parameters that it receives; empty if there is
            one version only.
        round: the round.
    """

    header: RequestHeader
    parameters: ArrayRecord
    clients: list[int]
    versions: list[int]
    round: int

    _instructions: ClassVar[tuple[str, ...]]  # fields of the configuration record, in their order

    @property
    def config(self) -> dict[str, Any]:
        """Fields of the configuration record, as `NumPyClient` methods receive them."""
        instructions = {name: getattr(self, name) for name in self._instructions}
        return {
            **self.header.fields,
            **instructions,
            "clients": self.clients,
            "versions": self.versions,
        }

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """Copies of the parameters; PyTorch may modify them in place."""
        return [array.numpy() for array in self.parameters.values()]

    def to_record(self) -> RecordDict:
        """Write the request."""
        return RecordDict({_PARAMETERS: self.parameters, _CONFIG: ConfigRecord(self.config)})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the request."""
        config = read_config(content)
        return cls(
            header=RequestHeader.from_record(content),
            parameters=content.array_records[_PARAMETERS],
            clients=list(config["clients"]),
            versions=list(config["versions"]),
            **{name: config[name] for name in cls._instructions},
        )


@dataclass(frozen=True, slots=True)
class TrainRequest(Request):
    """Asks a node to train some of its clients.

    Attributes:
        attempt: number of earlier attempts at the round.
        clip_norm: see `privacy.mechanism.ServerMechanism.clip_norm`.
    """

    attempt: int
    clip_norm: float

    _instructions: ClassVar[tuple[str, ...]] = ("round", "attempt", "clip_norm")


@dataclass(frozen=True, slots=True)
class EvaluateRequest(Request):
    """Asks a node to evaluate some of its clients, and to keep a snapshot of their state.

    Attributes:
        slot: slot of the personal parameters to evaluate with.
        snapshot: slot to store the current personal parameters in; empty for none.
        note: whether the node stores per-user results on its disk.
    """

    slot: str
    snapshot: str
    note: bool

    _instructions: ClassVar[tuple[str, ...]] = ("slot", "snapshot", "note", "round")


@dataclass(frozen=True, slots=True)
class TrainReply:
    """A node's reply to a `TrainRequest`.

    Attributes:
        weight: sum of the weights of the clients that replied.
        loss: sum of the clients' mean training losses, each times the client's weight.
        bytes_up: sum of the bytes that each client would send if it were alone on its node.
        replied: number of clients that replied.
        arrays: sum of updates or individual updates by name, packed; see `TrainResult.arrays` and
            `packing.pack`.
        num_rows: number of rows of each array whose untouched rows were removed.
        failures: why the other clients did not reply, by client code.
    """

    weight: float
    loss: float
    bytes_up: int
    replied: int
    arrays: Arrays
    num_rows: dict[str, int]
    failures: dict[int, Failure]

    def to_record(self) -> RecordDict:
        """Write the reply."""
        metrics: dict[str, Any] = {
            "num_examples": self.weight,
            "loss": self.loss,
            "bytes_up": self.bytes_up,
            "replied": self.replied,
        }
        return RecordDict(
            {
                _UPDATE: ArrayRecord({name: Array(value) for name, value in self.arrays.items()}),
                _NUM_ROWS: ConfigRecord({**self.num_rows}),
                _FAILURES: ConfigRecord(failure_fields(self.failures)),
                _METRICS: MetricRecord(metrics),
            }
        )

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read a reply from an untrusted node; an invalid one may raise any exception."""
        metrics: Any = content.metric_records[_METRICS]
        failures: Any = content.config_records[_FAILURES]
        num_rows: Any = content.config_records[_NUM_ROWS]
        update = content.array_records[_UPDATE]
        return cls(
            weight=float(metrics["num_examples"]),
            loss=float(metrics["loss"]),
            bytes_up=int(metrics["bytes_up"]),
            replied=int(metrics["replied"]),
            arrays={name: _numbers(name, array.numpy()) for name, array in update.items()},
            num_rows={name: int(count) for name, count in num_rows.items()},
            failures=read_failures(failures),
        )


@dataclass(frozen=True, slots=True)
class EvaluateReply:
    """A node's reply to an `EvaluateRequest`.

    Attributes:
        sums: metric sums by part of the data.
        num_clients: number of evaluated clients.
        num_users: number of evaluated users.
    """

    sums: Mapping[Part, MetricSums]
    num_clients: int
    num_users: int

    @property
    def failures(self) -> Mapping[int, Failure]:
        """No failures: a reply is about all requested clients, or it is rejected."""
        return {}

    def to_record(self) -> RecordDict:
        """Write the reply."""
        counts = {"num_clients": self.num_clients, "num_users": self.num_users}
        return RecordDict({_METRICS: MetricRecord({**counts, **metrics_of(self.sums)})})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read a reply from an untrusted node; an invalid one may raise any exception."""
        metrics: Any = content.metric_records[_METRICS]
        return cls(sums_of(metrics), int(metrics["num_clients"]), int(metrics["num_users"]))


def metrics_of(sums: Mapping[Part, MetricSums]) -> dict[str, list[float]]:
    """Return metric sums as Flower metrics.

    Returns:
        "<part>/<metric>" -> [sum, sum of squares, count].
    """
    return {
        f"{part.name.lower()}/{metric}": list(part_sums.of(metric))
        for part, part_sums in sums.items()
        for metric in part_sums.total
    }


def sums_of(metrics: Mapping[str, Any]) -> dict[Part, MetricSums]:
    """Read what `metrics_of` returns; other entries are ignored."""
    sums = {part: MetricSums() for part in EVALUATED_PARTS}
    for key, value in metrics.items():
        part, _, metric = key.partition("/")
        if metric:
            sums[Part[part.upper()]].put(metric, *map(float, value))
    return sums


def failure_fields(failures: Mapping[int, Failure]) -> dict[str, Any]:
    """Return failures by client code as fields of a configuration record."""
    return {"clients": list(failures), "reasons": [str(failure) for failure in failures.values()]}


def read_failures(fields: Mapping[str, Any]) -> dict[int, Failure]:
    """Read what `failure_fields` returns."""
    pairs = zip(fields["clients"], fields["reasons"], strict=True)
    return {int(client): Failure.parse(str(reason)) for client, reason in pairs}


def read_config(content: RecordDict) -> dict[str, Any]:
    """Return the fields of the configuration record of a request."""
    return dict(content.config_records[_CONFIG])


def payload_bytes(content: RecordDict) -> int:
    """Return the bytes of all arrays and byte strings in a message."""
    num_bytes = 0
    for arrays in content.array_records.values():
        num_bytes += sum(len(array.data) for array in arrays.values())
    for config in content.config_records.values():
        for field in config.values():
            values = field if isinstance(field, list) else [field]
            num_bytes += sum(len(value) for value in values if isinstance(value, bytes))
    return num_bytes


def _numbers(name: str, array: NDArray[Any]) -> NDArray[Any]:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in _NUMBER_KINDS:
        raise TypeError(f"{name} has no numeric type")
    return array
