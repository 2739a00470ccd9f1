"""Fault models: clients that are absent or late, send invalid replies, or attack.

Faults occur at configured rates; the same seed gives the same faults.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, IndexArray, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.threats.byzantine import labels_flipped, sample_byzantine_clients, scaled
from fedrec_flower.threats.latency import latency, uniform


@dataclass(frozen=True, slots=True)
class MalformedReply:
    """A reply whose tensors have wrong shapes, or a second reply of a client.

    Attributes:
        client: code of the client.
        weight: weight in the reply.
        tensors: tensors in the reply, by name.
        duplicate: whether the client has already replied.
    """

    client: int
    weight: float
    tensors: Tensors
    duplicate: bool


class FaultModel(ABC):
    """Faults of clients in a run."""

    @property
    @abstractmethod
    def only_absences(self) -> bool:
        """Whether absence is the only fault of clients."""

    @property
    @abstractmethod
    def reveals_activity(self) -> bool:
        """Whether a client's number of interactions influences whether it replies."""

    @abstractmethod
    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, Failure]:
        """The clients that do not reply, with the reason; their personal state is not changed.

        Args:
            clients: codes of the cohort, or of a node's part of it: the result for a client does
                not depend on the others.
            round_: the round.
            attempt: number of earlier attempts of the round.
        """

    @abstractmethod
    def tamper(self, data: ClientData) -> ClientData:
        """The data that a client trains on."""

    @abstractmethod
    def late(
        self,
        clients: IndexArray,
        num_examples: IndexArray,
        round_: int,
        attempt: int,
    ) -> dict[int, Failure]:
        """The clients that train and reply too late, with the reason.

        Args:
            clients: int64 (num_clients,), codes of clients that trained.
            num_examples: int64 (num_clients,), interactions that each client trained on.
            round_: the round.
            attempt: number of earlier attempts of the round.
        """

    @abstractmethod
    def corrupt(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[MalformedReply]]:
        """The updates and malformed replies that arrive.

        Args:
            updates: updates of honest clients, not corrupted.
            tables: names of the parameters with a row per item.
            round_: the round.
            attempt: number of earlier attempts of the round.

        Returns:
            Updates with the expected shapes, and the malformed replies.
        """


class NoFaults(FaultModel):
    """`faults=none`: every client replies in time with a valid update."""

    @property
    @override
    def only_absences(self) -> bool:
        return True

    @property
    @override
    def reveals_activity(self) -> bool:
        return False

    @override
    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, Failure]:
        return {}

    @override
    def tamper(self, data: ClientData) -> ClientData:
        return data

    @override
    def late(
        self,
        clients: IndexArray,
        num_examples: IndexArray,
        round_: int,
        attempt: int,
    ) -> dict[int, Failure]:
        return {}

    @override
    def corrupt(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[MalformedReply]]:
        return updates, []


ENORMOUS = 1e30  # larger than every valid value or weight, and still a finite float32

VALUES = {"not_a_number": float("nan"), "infinite": float("inf"), "huge": ENORMOUS}


def overwrite(
    updates: Updates, tables: Collection[str], broken: BoolArray, value: float
) -> Updates:
    """Set all values of some clients' updates to one value.

    Args:
        updates: the updates; not changed.
        tables: names of the parameters with a row per item.
        broken: bool (num_clients,), true for the clients to change.
        value: the value.
    """
    tensors = {name: array.copy() for name, array in updates.tensors.items()}
    for name, array in tensors.items():
        array[broken[updates.owners] if name in tables else broken] = value
    return replace(updates, tensors=tensors)


def wrong_weight(updates: Updates, broken: BoolArray) -> Updates:
    """Set some clients' weights to a negative, zero or very large value, by the client's code."""
    zeros = np.zeros(len(broken))
    wrong = np.stack([-updates.weights, zeros, zeros + ENORMOUS])
    by_client = wrong[updates.clients % 3, np.arange(len(broken))]
    return replace(updates, weights=np.where(broken, by_client, updates.weights))


def wrong_shape(updates: Updates, place: int, tables: Collection[str]) -> MalformedReply:
    """The reply of the client at a place, with one axis too many in every tensor."""
    reply = duplicate(updates, place, tables)
    tensors = {name: np.stack([array, array]) for name, array in reply.tensors.items()}
    return replace(reply, tensors=tensors, duplicate=False)


def duplicate(updates: Updates, place: int, tables: Collection[str]) -> MalformedReply:
    """A second reply of the client at a place, equal to its first."""
    one = updates.select(np.array([place]), tables)
    tensors = {name: v if name in tables else v[0] for name, v in one.tensors.items()}
    return MalformedReply(int(one.clients[0]), float(one.weights[0]), tensors, duplicate=True)


_ABSENT = {"dropout": FailureKind.DROPPED_OUT, "crash": FailureKind.CRASHED}
_KINDS = (*_ABSENT, *VALUES, "wrong_shape", "wrong_weight", "repeated")


@dataclass(frozen=True)
class Faults(FaultModel):
    """Clients that are absent or late, send invalid replies, or attack.

    A client has at most one fault in a round, drawn again in every round and attempt: the rates
    from `dropout` to `repeated` are shares of a cohort, and their sum is at most 1. Lateness is
    drawn separately: see `faults.latency`. Attackers are the same clients in every round.
    Evaluation has no faults.

    Attributes:
        dropout: rate of clients that do not take part in the round.
        crash: rate of clients that fail during training; their personal state is not changed.
        not_a_number: rate of updates that are NaN.
        infinite: rate of updates that are infinite.
        huge: rate of updates that are finite and very large.
        wrong_shape: rate of updates of a wrong shape.
        wrong_weight: rate of updates with a negative, zero or very large weight.
        repeated: rate of replies that arrive twice.
        deadline: time after which a reply is late, in the units of `faults.latency`; None for no
            deadline. A late client has trained, so its personal parameters have changed.
        latency_spread: see `faults.latency`.
        attackers: share of the federation's clients that attack.
        attack: "scaling" multiplies the update by `factor`; "label_flip" trains on items that the
            user never touched as positive items.
        factor: multiplier of scaling attackers; a negative one also reverses the update.
        seed: the experiment's seed.
        num_clients: number of clients of the federation.
        num_items: size of the catalogue.

    Raises:
        ConfigError: if a rate is impossible.
    """

    dropout: float
    crash: float
    not_a_number: float
    infinite: float
    huge: float
    wrong_shape: float
    wrong_weight: float
    repeated: float
    deadline: float | None
    latency_spread: float
    attackers: float
    attack: Literal["scaling", "label_flip"]
    factor: float
    seed: int
    num_clients: int
    num_items: int

    def __post_init__(self) -> None:
        """Validate the values."""
        for name in (*_KINDS, "attackers"):
            rate = getattr(self, name)
            require(0 <= rate <= 1, f"faults.{name} must be a share from 0 to 1: {rate}")
        total = sum(self._rates)
        require(
            total <= 1 + 1e-9,
            f"the rates of faults from dropout to repeated sum to {total:g}: at most 1",
        )
        require(
            self.deadline is None or self.deadline > 0,
            f"faults.deadline must be above 0 or null: {self.deadline}",
        )
        spread = self.latency_spread
        require(spread >= 0, f"faults.latency_spread must not be negative: {spread}")

    @property
    @override
    def only_absences(self) -> bool:
        others = [rate for kind, rate in self._rate_by_kind.items() if kind not in _ABSENT]
        return not any(others) and self.deadline is None and not self.attackers

    @property
    @override
    def reveals_activity(self) -> bool:
        """True with a deadline, because clients with more interactions are late more often."""
        return self.deadline is not None

    @override
    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, Failure]:
        kinds = self._kinds(np.asarray(clients, np.int64), round_, attempt)
        pairs = zip(clients, kinds.tolist(), strict=True)
        return {client: Failure(_ABSENT[kind]) for client, kind in pairs if kind in _ABSENT}

    @override
    def tamper(self, data: ClientData) -> ClientData:
        if self.attack != "label_flip" or not self._attackers[data.client]:
            return data
        rng = generator(self.seed, "label-flip", 0, data.client)
        return labels_flipped(data, self.num_items, rng)

    @override
    def late(
        self,
        clients: IndexArray,
        num_examples: IndexArray,
        round_: int,
        attempt: int,
    ) -> dict[int, Failure]:
        if self.deadline is None:
            return {}
        times = latency(self.seed, clients, num_examples, round_, attempt, self.latency_spread)
        return {
            int(client): Failure(FailureKind.LATE, f"after {time:.0f} instead of {self.deadline:g}")
            for client, time in zip(clients, times, strict=True)
            if time > self.deadline
        }

    @override
    def corrupt(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[MalformedReply]]:
        if not updates.tensors:  # the strategy sends no parameters
            return updates, []
        kinds = self._kinds(updates.clients, round_, attempt)
        is_attacker = self._attackers[updates.clients]
        if self.attack == "scaling" and is_attacker.any():
            updates = scaled(updates, tables, is_attacker, self.factor)
        for kind, value in VALUES.items():
            if (kinds == kind).any():
                updates = overwrite(updates, tables, kinds == kind, value)
        updates = wrong_weight(updates, kinds == "wrong_weight")
        with_wrong_shape = np.flatnonzero(kinds == "wrong_shape")
        replies = [wrong_shape(updates, int(place), tables) for place in with_wrong_shape]
        replies += [
            duplicate(updates, int(place), tables) for place in np.flatnonzero(kinds == "repeated")
        ]
        if len(with_wrong_shape):
            updates = updates.select(np.flatnonzero(kinds != "wrong_shape"), tables)
        return updates, replies

    @property
    def _rates(self) -> list[float]:
        return [getattr(self, kind) for kind in _KINDS]

    @property
    def _rate_by_kind(self) -> dict[str, float]:
        return dict(zip(_KINDS, self._rates, strict=True))

    @cached_property
    def _attackers(self) -> BoolArray:
        return sample_byzantine_clients(self.seed, self.num_clients, self.attackers)

    def _kinds(self, clients: IndexArray, round_: int, attempt: int) -> NDArray[np.str_]:
        """The kind of each client's fault in the round: (num_clients,), "" for no fault."""
        draws = uniform(self.seed, "mishap", round_, clients, attempt)
        place = np.searchsorted(np.cumsum(self._rates), draws, side="right")
        return np.array([*_KINDS, ""])[place]
