"""Whole sessions of secure aggregation without messages, with members that fall silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.secure_aggregation.client import Member, Rules
from fedrec_flower.communication.secure_aggregation.messages import Contribution, UnmaskRequest
from fedrec_flower.communication.secure_aggregation.primitives import neighbourhoods
from fedrec_flower.communication.secure_aggregation.server import Coordinator, TooFewError

STAGES = ("advertise", "share", "mask", "unmask")

Vector = NDArray[Any]

LENIENT = Rules(share=0.5, min_nodes=2, min_clients=1)


def schedule(rng: np.random.Generator, num_members: int, rates: Sequence[float]) -> list[set[int]]:
    """Who falls silent at each stage, at the rates of the stages."""
    drawn = [rng.random(num_members) < rate for rate in rates]
    return [set(np.flatnonzero(silent).tolist()) for silent in drawn]


@dataclass
class Session:
    """One session among members that hold vectors; members live on nothing but their state.

    Attributes:
        vectors: one of each member, uint32 or uint64.
        threshold: how many shares make up a secret.
        num_neighbours: of each member; None for all.
        silent: who says nothing from each of the four stages on.
        rules: what every member demands.
        coordinator: the server's side.
        states: what each member remembers.
        parts: what the members have masked, as the coordinator got it.
    """

    vectors: Sequence[Vector]
    threshold: int
    num_neighbours: int | None = None
    silent: Sequence[set[int]] = field(default_factory=lambda: [set[int]() for _ in STAGES])
    parts: dict[int, Contribution] = field(default_factory=dict)
    rules: Rules = LENIENT

    def __post_init__(self) -> None:
        neighbours = neighbourhoods(len(self.vectors), self.num_neighbours)
        self.coordinator = Coordinator(neighbours, self.threshold)
        everyone = range(len(self.vectors))
        fresh = [Member.create(place, self.threshold, self.rules) for place in everyone]
        self.states: list[Mapping[str, Any]] = [member.state() for member in fresh]

    @property
    def heard(self) -> dict[int, Vector]:
        """The masked vectors."""
        return {place: part.vector for place, part in self.parts.items()}

    def wanted(
        self, place: int, survivors: frozenset[int], dropouts: frozenset[int]
    ) -> UnmaskRequest:
        """A request to a member, with the numbers of clients as its neighbours gave them."""
        others = sorted((survivors - {place}) & self.parts.keys())
        return UnmaskRequest(
            survivors,
            dropouts,
            {other: self.parts[other].clients for other in others},
            {other: self.parts[other].tags[place] for other in others},
        )

    def member(self, place: int) -> Member:
        """The member as a worker finds it that has never seen it before."""
        return Member.from_state(self.states[place], self.rules)

    def run(self) -> Vector:
        """The sum over `coordinator.masked`.

        Raises:
            TooFewError: if too many have fallen silent.
        """
        keys = {place: self.member(place).public for place in self._talking(0)}
        shared = {}
        for place, others in self.coordinator.collect_keys(keys).items():
            if place in self._talking(1):
                member = self.member(place)
                shared[place] = member.share(others)
                self.states[place] = member.state()
        for place, encrypted in self.coordinator.collect_shares(shared).items():
            if place in self._talking(2):
                member = self.member(place)
                member.open(encrypted)
                self.parts[place] = member.mask(self.vectors[place], clients=1)
                self.states[place] = member.state()
        revealed = {}
        for place, wanted in self.coordinator.add_vectors(self.parts.items()).items():
            if place in self._talking(3):
                revealed[place] = self.member(place).unmask(wanted)
        return self.coordinator.unmask(revealed)

    def released(self) -> Vector | None:
        """The sum, or nothing."""
        try:
            return self.run()
        except TooFewError:
            return None

    def plain(self) -> Vector:
        """The sum in clear over those whose masked vectors arrived."""
        total = np.zeros_like(self.vectors[0])
        for place in self.coordinator.masked:
            total += self.vectors[place]
        return total

    def _talking(self, stage: int) -> set[int]:
        gone = set[int]().union(*self.silent[: stage + 1])
        return set(range(len(self.vectors))) - gone


def vectors(
    rng: np.random.Generator, num_members: int, length: int = 8, bits: int = 32
) -> list[Vector]:
    """Random vectors of unsigned integers, over all that they can hold."""
    draws = rng.integers(0, 1 << bits, (num_members, length), np.dtype(f"u{bits // 8}"))
    return list(draws)


def shared_among_three() -> tuple[list[Member], dict[int, dict[int, bytes]]]:
    """Three members of a session, and the shares each has sent to the others."""
    members = [Member.create(place, 2, LENIENT) for place in range(3)]
    public = {member.place: member.public for member in members}
    sent = {m.place: m.share({p: k for p, k in public.items() if p != m.place}) for m in members}
    return members, sent
