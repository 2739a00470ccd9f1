"""Messages between members (nodes) and coordinator (server) in the four exchanges of a session.

| exchange | request | reply |
|---|---|---|
| advertise | `AdvertiseRequest` | `PublicKeys` |
| share | `ShareRequest` | `ShareReply` |
| mask | `MaskRequest`, added to a request to train | `MaskReply` |
| unmask | `UnmaskRequest` | `RevealedShares` |

Members are numbered; in all mappings below the key is the number (`place`) of a member. Replies
come from untrusted nodes: their `from_record` may raise any exception.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedrec_flower.communication.schema import failure_fields, read_failures
from fedrec_flower.communication.secure_aggregation.primitives import Masked
from fedrec_flower.core.failures import Failure

# Names of records.
_REQUEST = "secure"
_REPLY = "said"
_MASKED = "masked"
_VECTOR = "vector"


class StageRequest(ABC):
    """Base of the requests.

    Attributes:
        stage: name of the exchange.
    """

    stage: ClassVar[str]

    @property
    @abstractmethod
    def fields(self) -> dict[str, Any]:
        """Fields of the request except stage and session."""

    def to_record(self, base: RecordDict, session: str) -> RecordDict:
        """Write the request.

        Args:
            base: the request to train in the mask exchange, otherwise a request without
                parameters.
            session: identifier of the session.
        """
        fields = {"stage": self.stage, **self.fields, "session": session}
        return RecordDict({**base, _REQUEST: ConfigRecord(fields)})


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request as a node receives it, before the content of its stage is read.

    Attributes:
        stage: name of the exchange.
        session: identifier of the session.
        fields: all fields.
    """

    stage: str
    session: str
    fields: Mapping[str, Any]

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read stage and session of a request."""
        fields: Any = dict(content.config_records[_REQUEST])
        return cls(fields["stage"], fields["session"], fields)


@dataclass(frozen=True, slots=True)
class AdvertiseRequest(StageRequest):
    """Asks a node to join a session and to send its public keys.

    Attributes:
        place: number of the node among the members.
        threshold: number of shares that reconstruct a secret.
    """

    stage: ClassVar[str] = "advertise"
    place: int
    threshold: int

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the request."""
        return {"threshold": self.threshold, "place": self.place}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the request."""
        return cls(fields["place"], fields["threshold"])


@dataclass(frozen=True, slots=True)
class PublicKeys:
    """A member's public keys of one session.

    Attributes:
        encryption: key for shares that other members send to this member.
        masking: key for pairwise masks.
    """

    encryption: bytes
    masking: bytes

    def to_record(self) -> RecordDict:
        """Write the reply."""
        fields: dict[str, Any] = {"encryption": self.encryption, "masking": self.masking}
        return RecordDict({_REPLY: ConfigRecord(fields)})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the reply."""
        fields: Any = content.config_records[_REPLY]
        return cls(_require_bytes(fields["encryption"]), _require_bytes(fields["masking"]))


@dataclass(frozen=True, slots=True)
class ShareRequest(StageRequest):
    """Asks a member to split its secrets among itself and its neighbours.

    Attributes:
        keys: public keys of the neighbours.
    """

    stage: ClassVar[str] = "share"
    keys: Mapping[int, PublicKeys]

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the request."""
        return {
            "places": list(self.keys),
            "encryption": [pair.encryption for pair in self.keys.values()],
            "masking": [pair.masking for pair in self.keys.values()],
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the request."""
        pairs = map(PublicKeys, fields["encryption"], fields["masking"])
        return cls(dict(zip(fields["places"], pairs, strict=True)))


@dataclass(frozen=True, slots=True)
class ShareReply:
    """The encrypted shares of a member's secrets.

    Attributes:
        ciphertexts: shares by receiver.
    """

    ciphertexts: Mapping[int, bytes]

    def to_record(self) -> RecordDict:
        """Write the reply."""
        return RecordDict({_REPLY: ConfigRecord(_ciphertext_fields(self.ciphertexts))})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the reply."""
        fields: Any = content.config_records[_REPLY]
        return cls(_bytes_by_place(fields["places"], fields["values"]))


@dataclass(frozen=True, slots=True)
class MaskRequest(StageRequest):
    """Asks a member to train and to send its masked sum; added to a request to train.

    Attributes:
        cohort: number of clients of all nodes that are asked to train.
        row_weights: whether the sum contains row weights.
        ciphertexts: encrypted shares for this member, by sender.
    """

    stage: ClassVar[str] = "mask"
    cohort: int
    row_weights: bool
    ciphertexts: Mapping[int, bytes]

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the request."""
        about = {"cohort": self.cohort, "rows": self.row_weights}
        return about | _ciphertext_fields(self.ciphertexts)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the request."""
        ciphertexts = dict(zip(fields["places"], fields["values"], strict=True))
        return cls(fields["cohort"], fields["rows"], ciphertexts)


@dataclass(frozen=True, slots=True)
class Contribution:
    """A member's masked part of the sum.

    Attributes:
        vector: masked unsigned integers (length,).
        clients: number of clients in the vector.
        tags: by neighbour, an authentication code of `clients` that only the neighbour can check.
    """

    vector: Masked
    clients: int
    tags: Mapping[int, bytes]


@dataclass(frozen=True, slots=True)
class MaskReply:
    """A member's masked sum, and the failures of its clients.

    Attributes:
        contribution: the masked sum.
        failures: why clients are not in the sum, by client code; kinds only, since details could
            reveal values of updates.
    """

    contribution: Contribution
    failures: Mapping[int, Failure]

    def to_record(self) -> RecordDict:
        """Write the reply."""
        kinds = {client: Failure(failure.kind) for client, failure in self.failures.items()}
        fields = failure_fields(kinds) | {
            "replied": self.contribution.clients,
            "places": list(self.contribution.tags),
            "tags": list(self.contribution.tags.values()),
        }
        vector = ArrayRecord({_VECTOR: Array(self.contribution.vector)})
        return RecordDict({_MASKED: vector, _REPLY: ConfigRecord(fields)})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the reply."""
        vector = content.array_records[_MASKED][_VECTOR].numpy()
        fields: Any = content.config_records[_REPLY]
        failures = read_failures(fields)
        tags = _bytes_by_place(fields["places"], fields["tags"])
        return cls(Contribution(vector, int(fields["replied"]), tags), failures)


@dataclass(frozen=True, slots=True)
class UnmaskRequest(StageRequest):
    """Asks a member for shares of other members' secrets.

    Attributes:
        survivors: members whose masked vectors arrived: shares of their self masks' seeds.
        dropouts: members that shared and sent no vector: shares of their masking keys.
        clients: number of clients in the vector of each survivor except the member itself.
        tags: the authentication codes of these numbers, made for the member.
    """

    stage: ClassVar[str] = "unmask"
    survivors: frozenset[int]
    dropouts: frozenset[int]
    clients: Mapping[int, int] = field(default_factory=dict)
    tags: Mapping[int, bytes] = field(default_factory=dict)

    @property
    def fields(self) -> dict[str, Any]:
        """Fields of the request."""
        return {
            "survivors": sorted(self.survivors),
            "dropouts": sorted(self.dropouts),
            "places": list(self.clients),
            "clients": list(self.clients.values()),
            "tags": list(self.tags.values()),
        }

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Self:
        """Read the request."""
        return cls(
            frozenset(fields["survivors"]),
            frozenset(fields["dropouts"]),
            dict(zip(fields["places"], fields["clients"], strict=True)),
            dict(zip(fields["places"], fields["tags"], strict=True)),
        )


@dataclass(frozen=True, slots=True)
class RevealedShares:
    """The shares that a member reveals.

    Attributes:
        seeds: shares of the seeds of survivors' self masks.
        keys: shares of the private masking keys of dropouts.
    """

    seeds: Mapping[int, bytes]
    keys: Mapping[int, bytes]

    def to_record(self) -> RecordDict:
        """Write the reply."""
        fields: dict[str, Any] = {
            "survivors": list(self.seeds),
            "seeds": list(self.seeds.values()),
            "dropouts": list(self.keys),
            "keys": list(self.keys.values()),
        }
        return RecordDict({_REPLY: ConfigRecord(fields)})

    @classmethod
    def from_record(cls, content: RecordDict) -> Self:
        """Read the reply."""
        fields: Any = content.config_records[_REPLY]
        return cls(
            seeds=_bytes_by_place(fields["survivors"], fields["seeds"]),
            keys=_bytes_by_place(fields["dropouts"], fields["keys"]),
        )


def _ciphertext_fields(ciphertexts: Mapping[int, bytes]) -> dict[str, Any]:
    return {"places": list(ciphertexts), "values": list(ciphertexts.values())}


def _bytes_by_place(places: Iterable[Any], values: Iterable[Any]) -> dict[int, bytes]:
    pairs = zip(places, values, strict=True)
    return {int(place): _require_bytes(value) for place, value in pairs}


def _require_bytes(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError(f"{value!r} is not bytes")
    return value
