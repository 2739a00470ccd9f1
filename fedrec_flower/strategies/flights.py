"""Clients at work on a clock that is simulated: nobody waits, and the same seed gives the same."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.seeding import generator

Codes = NDArray[np.int64]
# How long clients take: their codes, the round and how often clients were called in it before.
Duration = Callable[[Codes, int, int], NDArray[np.float64]]


def _nobody() -> Codes:
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class Flights:
    """Who is at work, since which server update, and until when.

    Attributes:
        seed: the experiment's seed, for who is called.
        num_clients: clients of the federation.
        concurrency: how many clients work at once.
        duration: how long clients take.
        now: what the clock shows.
        clients: int64 (n,), codes of those at work.
        given: int64 (n,), how many server updates went into what each was given.
        lands: float64 (n,), when each replies.
        calls: the round in which clients were last called, and how often.
    """

    seed: int
    num_clients: int
    concurrency: int
    duration: Duration
    now: float = 0.0
    clients: Codes = field(default_factory=_nobody)
    given: Codes = field(default_factory=_nobody)
    lands: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    calls: tuple[int, int] = (0, 0)

    def collect(self, count: int, round_: int) -> tuple[Codes, Codes]:
        """Let time pass until some clients have replied.

        Whenever one replies, others are called in its place, with what the server then has. Those
        that reply at the same instant are received before anyone is called. A client at work, or
        whose reply waits in the buffer, is not called.

        Args:
            count: replies to wait for, at most `num_clients`.
            round_: the server update that is to come, counted from one.

        Returns:
            int64 (count,): the clients, ascending, and what they were given, as `given`.
        """
        landed: list[tuple[int, int]] = []
        while len(landed) < count:
            if not (self.lands <= self.now).any():
                self._call([client for client, _ in landed], round_)
            # Of those that reply at the same instant, the lowest code first.
            first = int(np.lexsort((self.clients, self.lands))[0])
            self.now = max(self.now, float(self.lands[first]))
            landed.append((int(self.clients[first]), int(self.given[first])))
            self._keep(np.arange(len(self.clients)) != first)
        pairs = np.array(sorted(landed), np.int64)
        return pairs[:, 0], pairs[:, 1]

    def state(self) -> dict[str, NDArray[Any]]:
        """All that changes, by name."""
        return {
            "now": np.array(self.now),
            "clients": self.clients,
            "given": self.given,
            "lands": self.lands,
            "calls": np.array(self.calls),
        }

    def restore(self, state: dict[str, NDArray[Any]]) -> None:
        """Go on from what `state` gave."""
        self.now = float(state["now"])
        self.clients, self.given = state["clients"], state["given"]
        self.lands = state["lands"]
        self.calls = (int(state["calls"][0]), int(state["calls"][1]))

    def _call(self, waiting: list[int], round_: int) -> None:
        """Call idle clients until as many work as may."""
        idle = np.setdiff1d(np.arange(self.num_clients), [*self.clients.tolist(), *waiting])
        size = min(self.concurrency - len(self.clients), len(idle))
        if size <= 0:
            return
        count = self.calls[1] + 1 if self.calls[0] == round_ else 0
        # The first call of a round is addressed as a cohort is: where all reply at once, rounds
        # are those of FedAvg.
        rng = generator(self.seed, "cohort", round_, count)
        called = np.sort(rng.choice(idle, size, replace=False))
        self.calls = (round_, count)
        self.clients = np.concatenate([self.clients, called])
        self.given = np.concatenate([self.given, np.full(size, round_ - 1)])
        ends = self.now + self.duration(called, round_, count)
        self.lands = np.concatenate([self.lands, ends])

    def _keep(self, those: NDArray[np.bool_]) -> None:
        self.clients, self.given = self.clients[those], self.given[those]
        self.lands = self.lands[those]
