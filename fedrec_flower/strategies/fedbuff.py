"""FedBuff: the server moves whenever enough clients have replied, and waits for none in particular.

`clients_per_round` clients are at work at any time, each with the parameters that the server had
when it was called. Replies gather in a buffer; once it holds `buffer_size` of them the server
moves by their mean, in which a reply counts the less, the more often the server has moved since
its client was called. A round is such a move. Time is simulated (see `faults.latency`): clients
train when their reply is due, from the parameters they were given, so a run is exact and seeded.

Source: Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", Algorithm
1; the staleness function of section 5 has an exponent of 1/2. Updates are weighted by
`num_examples` by default, uniformly, as in the paper, with `weighting=uniform`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec_flower.aggregation import Updates, UpdateSum
from fedrec_flower.errors import require
from fedrec_flower.faults import latency
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.flights import Codes, Flights
from fedrec_flower.strategies.messages import VERSIONS
from fedrec_flower.strategies.plan import Observer, Plan
from fedrec_flower.strategies.stepping import ServerOptimizer, SteppingStrategy, chosen, under

_A_SHARE = 5  # of the clients at work, by default one in so many fills the buffer


class FedBuff(SteppingStrategy):
    """Averages the replies in a buffer, stale ones less.

    Args:
        plan: the run; `clients_per_round` clients are at work at any time.
        observer: hears of every round.
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

    stacked: ClassVar[bool] = True

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
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
        at_work, most = plan.clients_per_round, plan.num_clients
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
        super().__init__(replace(plan, clients_per_round=size), observer, aggregation, step)
        self._exponent, self._spread = staleness_exponent, latency_spread
        self._per_example, self._weighting = per_example, weighting
        self._flights = Flights(plan.seed, most, at_work, self._duration)
        self._held: dict[int, Tensors] = {}  # what clients at work were given, by server update
        self._age: Codes = np.zeros(most, np.int64)  # moves of the server since each was called

    def local(self) -> dict[str, Any]:
        """See `FederatedStrategy.local`."""
        method = "fedrec_flower.client.methods.Plain"
        return {"_target_": method, "weighting": self._weighting}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Let time pass until the buffer is full; those who filled it now train."""
        del arrays, config, grid
        self._held[server_round - 1] = self._parameters
        buffer, given = self._flights.collect(self.plan.clients_per_round, server_round)
        self._age[buffer] = server_round - 1 - given
        self._participated[buffer] += 1
        about = {"round": server_round, "attempt": self._attempt}
        versions = self._versions(buffer, given)
        needed = {*self._flights.given.tolist(), server_round - 1}
        self._held = {move: held for move, held in self._held.items() if move in needed}
        yield from self._post.requests("train", buffer, versions, about, server_round)

    def combine(self, updates: Updates) -> Tensors:
        """See `FederatedStrategy.combine`: the mean over the buffer, stale replies scaled down."""
        shapes = {name: self._parameters[name].shape for name in updates.tensors}
        total = UpdateSum.zeros(shapes, self.plan.num_items)
        total.add(self._scaled(updates), self.plan.item_tables)
        return self._mean(total)

    def measured(self) -> Mapping[str, float]:
        """See `FederatedStrategy.measured`: what the simulated clock shows."""
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
        self._held = {m: {n: held[f"{m}/{n}"] for n in self._parameters} for m in moves}

    def _versions(self, buffer: Codes, given: Codes) -> Tensors:
        """What the clients were given, as messages carry it; see `VERSIONS`."""
        moves, version = np.unique(given, return_inverse=True)
        if len(moves) == 1:
            return self._held[int(moves[0])]
        stacked: dict[str, Any] = {
            name: np.stack([self._held[int(move)][name] for move in moves])
            for name in self._parameters
        }
        of_client = np.zeros(self.plan.num_clients, np.int64)
        of_client[buffer] = version
        return stacked | {VERSIONS: of_client}

    def _scaled(self, updates: Updates) -> Updates:
        """The updates, each scaled down by its age."""
        scale = ((1.0 + self._age[updates.clients]) ** -self._exponent).astype(np.float32)
        tables, rows = self.plan.item_tables, scale[updates.owners]
        scaled = {
            name: value * (rows if name in tables else scale).reshape(-1, *[1] * (value.ndim - 1))
            for name, value in updates.tensors.items()
        }
        return replace(updates, tensors=scaled)

    def _duration(self, clients: Codes, round_: int, count: int) -> NDArray[np.float64]:
        """Simulated seconds that clients take; see `flights.Duration`."""
        examples = self.plan.num_examples[clients]
        taken = latency(self.plan.seed, clients, examples, round_, count, self._spread)
        return taken * self._per_example
