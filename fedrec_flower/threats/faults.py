"""A world in which things go wrong, at rates of one's choice; the same seed, the same mishaps.

A world in which nothing goes wrong, and the shape of every other one.

Replies that break on their way: each function spoils some clients' updates, never in place.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.threats.byzantine import drawn_liars, labels_flipped, scaled
from fedrec_flower.threats.latency import latency, uniform


@dataclass(frozen=True, slots=True)
class Odd:
    """A reply that has not the layout of the others, or that came again.

    Attributes:
        client: whose it is.
        weight: the weight it claims.
        tensors: what it sends, by name.
        again: whether the client has already replied.
    """

    client: int
    weight: float
    tensors: Tensors
    again: bool


class NoFaults:
    """`faults=none`: everyone is there, in time, sound and honest."""

    @property
    def only_absences(self) -> bool:
        """Whether clients may be absent and nothing worse happens."""
        return True

    @property
    def tells_activity(self) -> bool:
        """Whether who replies hangs on how much a client has."""
        return False

    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, Failure]:
        """Who of a cohort will not reply, and why; such a client keeps nothing of the round.

        Args:
            clients: codes of the cohort, or of a node's part of it: the answer for a client does
                not depend on the others.
            round_: the round.
            attempt: how often the round was tried before.
        """
        del clients, round_, attempt
        return {}

    def tamper(self, data: ClientData, round_: int) -> ClientData:
        """What a client really trains on."""
        del round_
        return data

    def late(
        self,
        clients: NDArray[np.int64],
        num_examples: NDArray[np.int64],
        round_: int,
        attempt: int,
    ) -> dict[int, Failure]:
        """Who trains and replies too late, and why.

        Args:
            clients: int64 (num_clients,), codes of clients that trained.
            num_examples: int64 (num_clients,), interactions each trained on.
            round_: the round.
            attempt: how often the round was tried before.
        """
        del clients, num_examples, round_, attempt
        return {}

    def spoil(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[Odd]]:
        """What really arrives of the clients' updates.

        Args:
            updates: what honest, sound clients send.
            tables: names of the parameters with a row per item.
            round_: the round.
            attempt: how often the round was tried before.

        Returns:
            Updates of the right layout, and replies of another.
        """
        del tables, round_, attempt
        return updates, []


ENORMOUS = 1e30  # beyond all that anyone learns or counts, and still a float32

VALUES = {"not_a_number": float("nan"), "infinite": float("inf"), "huge": ENORMOUS}


def overwritten(
    updates: Updates, tables: Collection[str], broken: NDArray[np.bool_], value: float
) -> Updates:
    """Some clients' updates, of one value throughout.

    Args:
        updates: the updates.
        tables: names of the parameters with a row per item.
        broken: bool (num_clients,), which clients' are.
        value: the value.
    """
    tensors = {name: array.copy() for name, array in updates.tensors.items()}
    for name, array in tensors.items():
        array[broken[updates.owners] if name in tables else broken] = value
    return replace(updates, tensors=tensors)


def reweighed(updates: Updates, broken: NDArray[np.bool_]) -> Updates:
    """Some clients' weights, wrong: by the client's code negative, zero or enormous."""
    nothing = np.zeros(len(broken))
    wrong = np.stack([-updates.weights, nothing, nothing + ENORMOUS])
    each = wrong[updates.clients % 3, np.arange(len(broken))]
    return replace(updates, weights=np.where(broken, each, updates.weights))


def misshapen(updates: Updates, place: int, tables: Collection[str]) -> Odd:
    """A client's update with an axis too many."""
    sound = again(updates, place, tables)
    return replace(
        sound,
        tensors={name: np.stack([array, array]) for name, array in sound.tensors.items()},
        again=False,
    )


def again(updates: Updates, place: int, tables: Collection[str]) -> Odd:
    """A client's update, sent another time."""
    one = updates.select(np.array([place]), tables)
    tensors = {name: v if name in tables else v[0] for name, v in one.tensors.items()}
    return Odd(int(one.clients[0]), float(one.weights[0]), tensors, again=True)


_ABSENT = {"dropout": FailureKind.DROPPED_OUT, "crash": FailureKind.CRASHED}
_MISHAPS = (*_ABSENT, *VALUES, "wrong_shape", "wrong_weight", "repeated")


@dataclass(frozen=True)
class Faults(NoFaults):
    """Absent, late, broken and hostile clients.

    A round befalls each client with one mishap at most, drawn anew in every round and attempt:
    the rates from `dropout` to `repeated` are shares of a cohort and sum to 1 at most. Being late
    is another matter: see `faults.latency`. Attackers are the same clients in every round.
    Evaluation is spared.

    Attributes:
        dropout: rate of clients that never take part in the round.
        crash: rate of clients that fail while they train; nothing of it is kept.
        not_a_number: rate of updates that are NaN.
        infinite: rate of updates that are infinite.
        huge: rate of updates that are finite and beyond reason.
        wrong_shape: rate of updates of a wrong shape.
        wrong_weight: rate of updates with a negative, zero or enormous weight.
        repeated: rate of replies that arrive twice.
        deadline: when a reply is late, in the units of `faults.latency`; None: never. A late
            client has trained, so its personal parameters have moved.
        latency_spread: see `faults.latency`.
        attackers: share of the federation's clients that attack.
        attack: "scaling" multiplies the update by `factor`; "label_flip" trains on items that the
            user never touched as if they were liked.
        factor: of scaling attackers; a negative one also turns the update round.
        seed: the experiment's seed.
        num_clients: clients of the federation.
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
        """Refuse what cannot be."""
        for name in (*_MISHAPS, "attackers"):
            rate = getattr(self, name)
            require(0 <= rate <= 1, f"faults.{name} must be a share from 0 to 1: {rate}")
        total = sum(self._rates)
        complaint = f"the rates of faults from dropout to repeated sum to {total:g}: at most 1"
        require(total <= 1 + 1e-9, complaint)
        lasts = self.deadline is None or self.deadline > 0
        require(lasts, f"faults.deadline must be above 0 or null: {self.deadline}")
        spread = self.latency_spread
        require(spread >= 0, f"faults.latency_spread must not be negative: {spread}")

    @property
    def only_absences(self) -> bool:
        """See `NoFaults.only_absences`."""
        harmful = [rate for n, rate in zip(_MISHAPS, self._rates, strict=True) if n not in _ABSENT]
        return not any(harmful) and self.deadline is None and not self.attackers

    @property
    def tells_activity(self) -> bool:
        """See `NoFaults.tells_activity`; who has more is late more often."""
        return self.deadline is not None

    def absent(self, clients: Sequence[int], round_: int, attempt: int) -> dict[int, Failure]:
        """See `NoFaults.absent`."""
        mishap = self._mishaps(np.asarray(clients, np.int64), round_, attempt)
        pairs = zip(clients, mishap.tolist(), strict=True)
        return {client: Failure(_ABSENT[name]) for client, name in pairs if name in _ABSENT}

    def tamper(self, data: ClientData, round_: int) -> ClientData:
        """See `NoFaults.tamper`."""
        del round_
        if self.attack != "label_flip" or not self._attackers[data.client]:
            return data
        rng = generator(self.seed, "label-flip", 0, data.client)
        return labels_flipped(data, self.num_items, rng)

    def late(
        self,
        clients: NDArray[np.int64],
        num_examples: NDArray[np.int64],
        round_: int,
        attempt: int,
    ) -> dict[int, Failure]:
        """See `NoFaults.late`."""
        if self.deadline is None:
            return {}
        taken = latency(self.seed, clients, num_examples, round_, attempt, self.latency_spread)
        return {
            int(client): Failure(FailureKind.LATE, f"after {time:.0f} instead of {self.deadline:g}")
            for client, time in zip(clients, taken, strict=True)
            if time > self.deadline
        }

    def spoil(
        self, updates: Updates, tables: Collection[str], round_: int, attempt: int
    ) -> tuple[Updates, list[Odd]]:
        """See `NoFaults.spoil`."""
        if not updates.tensors:  # nothing is sent
            return updates, []
        mishap = self._mishaps(updates.clients, round_, attempt)
        liars = self._attackers[updates.clients]
        if self.attack == "scaling" and liars.any():
            updates = scaled(updates, tables, liars, self.factor)
        for name, value in VALUES.items():
            if (mishap == name).any():
                updates = overwritten(updates, tables, mishap == name, value)
        updates = reweighed(updates, mishap == "wrong_weight")
        broken, twice = (np.flatnonzero(mishap == name) for name in ("wrong_shape", "repeated"))
        odd = [misshapen(updates, int(place), tables) for place in broken]
        odd += [again(updates, int(place), tables) for place in twice]
        if len(broken):
            updates = updates.select(np.flatnonzero(mishap != "wrong_shape"), tables)
        return updates, odd

    @property
    def _rates(self) -> list[float]:
        return [getattr(self, name) for name in _MISHAPS]

    @cached_property
    def _attackers(self) -> NDArray[np.bool_]:
        return drawn_liars(self.seed, self.num_clients, self.attackers)

    def _mishaps(self, clients: NDArray[np.int64], round_: int, attempt: int) -> NDArray[np.str_]:
        """(num_clients,): what befalls each of them in the round, "" for nothing."""
        chance = uniform(self.seed, "mishap", round_, clients, attempt)
        place = np.searchsorted(np.cumsum(self._rates), chance, side="right")
        return np.array([*_MISHAPS, ""])[place]
