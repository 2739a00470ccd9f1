"""FedBuff: the server moves whenever enough clients have replied, and waits for none in particular.

`clients_per_round` clients are at work at any time, each with the parameters that the server had
when it was called. Replies gather in a buffer; once it holds `buffer_size` of them the server
moves by their mean, in which a reply counts the less, the more often the server has moved since
its client was called. A round is such a move. Time is simulated (see `faults.latency`): clients
train when their reply is due, from the parameters they were given, so a run is exact and seeded.

Source: Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", Algorithm
1; the staleness function of section 5 has an exponent of 1/2. Updates are weighted by
`num_examples` by default, uniformly, as in the paper, with `weighting=uniform`.

Clients at work on a clock that is simulated: nobody waits, and the same seed gives the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Shapes, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.base import VERSIONS, Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import Plain
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen, under
from fedrec_flower.threats.latency import latency

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


_A_SHARE = 5  # of the clients at work, by default one in so many fills the buffer


class FedBuff(SteppingStrategy):
    """Averages the replies in a buffer, stale ones less.

    Args:
        info: facts of the run; `clients_per_round` clients are at work at any time.
        aggregation: see `FederatedStrategy`.
        weighting: what each client weighs in the means: "examples", its training interactions;
            "uniform", one, as in the paper.
        buffer_size: replies that the server waits for; None for a fifth of those at work.
        staleness_exponent: a reply counts (1 + moves since)^-exponent; 0: age does not matter.
        latency_spread: standard deviation of the logarithm of how slow devices are, and how busy.
        seconds_per_example: simulated seconds in which a median device learns from one interaction.
        server_optimizer: how the server steps, named as the strategy that averages and steps so.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if a value is impossible.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Literal["uniform", "examples"],
        buffer_size: int | None,
        staleness_exponent: float,
        latency_spread: float,
        seconds_per_example: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        at_work, most = info.clients_per_round, info.num_clients
        size = max(1, at_work // _A_SHARE) if buffer_size is None else buffer_size
        require(
            1 <= size <= most,
            f"strategy.buffer_size={size} is impossible: choose between 1 and {most}",
        )
        numbers = {"staleness_exponent": staleness_exponent, "latency_spread": latency_spread}
        for name, value in numbers.items():
            require(value >= 0, f"strategy.{name} must not be negative: {value}")
        per_example = seconds_per_example
        require(per_example > 0, f"strategy.seconds_per_example must be above 0: {per_example}")
        # What the round loop calls a cohort is a full buffer here.
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
        self._buffer_size = size
        self._exponent, self._spread = staleness_exponent, latency_spread
        self._per_example, self._weighting = per_example, weighting
        self._flights = Flights(info.seed, most, at_work, self._duration)
        self._held: dict[int, Tensors] = {}  # what clients at work were given, by server update
        self._age: Codes = np.zeros(most, np.int64)  # moves of the server since each was called

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return Plain(weighting=self._weighting)

    @property
    def replies_per_round(self) -> int:
        """See `FederatedStrategy.replies_per_round`: as many as the buffer holds."""
        return self._buffer_size

    def schedule(self, parameters: Tensors, round_: int) -> tuple[Codes, Tensors]:
        """See `FederatedStrategy.schedule`: let time pass until the buffer is full."""
        self._held[round_ - 1] = parameters
        buffer, given = self._flights.collect(self._buffer_size, round_)
        self._age[buffer] = round_ - 1 - given
        versions = self._versions(buffer, given)
        needed = {*self._flights.given.tolist(), round_ - 1}
        self._held = {move: held for move, held in self._held.items() if move in needed}
        return buffer, versions

    def aggregate(self, updates: Updates, shapes: Shapes) -> Tensors:
        """See `FederatedStrategy.aggregate`: the mean, stale replies scaled down."""
        total = UpdateSum.zeros(shapes, self.info.num_items)
        total.add(self._scaled(updates), self.info.item_tables)
        return self.mean(total)

    def round_metrics(self) -> Mapping[str, float]:
        """See `FederatedStrategy.round_metrics`: what the simulated clock shows."""
        return {"simulated_seconds": self._flights.now}

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`; also who is at work, and with what."""
        kept: dict[str, Any] = {f"step/{name}": v for name, v in super().state().items()}
        kept |= {f"flights/{name}": value for name, value in self._flights.state().items()}
        for move, held in self._held.items():
            kept |= {f"held/{move}/{name}": value for name, value in held.items()}
        return kept

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        super().restore(under(state, "step/"))
        self._flights.restore(under(state, "flights/"))
        held = under(state, "held/")
        moves = {int(name.partition("/")[0]) for name in held}
        # Messages tell parameters by their order.
        names = self.info.model.shared_names()
        self._held = {m: {n: held[f"{m}/{n}"] for n in names} for m in moves}

    def _versions(self, buffer: Codes, given: Codes) -> Tensors:
        """What the clients were given, as messages carry it; see `VERSIONS`."""
        moves, version = np.unique(given, return_inverse=True)
        if len(moves) == 1:
            return self._held[int(moves[0])]
        stacked: dict[str, Any] = {
            name: np.stack([self._held[int(move)][name] for move in moves])
            for name in self._held[int(moves[0])]
        }
        of_client = np.zeros(self.info.num_clients, np.int64)
        of_client[buffer] = version
        return stacked | {VERSIONS: of_client}

    def _scaled(self, updates: Updates) -> Updates:
        """The updates, each scaled down by its age."""
        scale = ((1.0 + self._age[updates.clients]) ** -self._exponent).astype(np.float32)
        tables, rows = self.info.item_tables, scale[updates.owners]
        scaled = {
            name: value * (rows if name in tables else scale).reshape(-1, *[1] * (value.ndim - 1))
            for name, value in updates.tensors.items()
        }
        return replace(updates, tensors=scaled)

    def _duration(self, clients: Codes, round_: int, count: int) -> NDArray[np.float64]:
        """Simulated seconds that clients take; see `flights.Duration`."""
        examples = self.info.num_examples[clients]
        taken = latency(self.info.seed, clients, examples, round_, count, self._spread)
        return taken * self._per_example
