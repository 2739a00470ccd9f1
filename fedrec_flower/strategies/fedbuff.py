"""FedBuff: asynchronous federated averaging with a buffer of replies.

`clients_per_round` clients train at any time, each from the parameters that the server had when
the client was dispatched. Replies fill a buffer. When it holds `buffer_size` replies, the server
moves by their mean, in which the weight of a reply decreases with its staleness: the number of
server updates since its client was dispatched. A round is one such server update. Time is
simulated (see `threats.latency`): a client is trained when its reply is due, from the parameters
it received, so a run is exact and seeded.

Source: Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation", Algorithm
1; the staleness function of section 5 has exponent 1/2. Updates are weighted by `num_examples` by
default, uniformly, as in the paper, with `weighting=uniform`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.ranges import NonNegativeFloat, PositiveFloat
from fedrec_flower.core.types import Arrays, BoolArray, Float64Array, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer, with_prefix
from fedrec_flower.strategies.base import VERSIONS, Aggregation, FederationInfo
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate, Weighting
from fedrec_flower.strategies.fedopt import FedOpt
from fedrec_flower.threats.latency import latency

# Training times (n,) from client codes, the round, and the number of earlier dispatches in it.
Duration = Callable[[IndexArray, int, int], Float64Array]

_DEFAULT_BUFFERS_PER_COHORT = 5  # by default the buffer holds a fifth of the training clients


class FedBuff(FedOpt):
    """FedOpt on the replies in a buffer, stale replies scaled down.

    Args:
        info: facts of the run; `clients_per_round` clients train at any time.
        aggregation: see `FederatedStrategy`.
        weighting: see `LocalUpdateRule`.
        buffer_size: replies per server update; None for a fifth of the training clients.
        staleness_exponent: a reply is scaled by (1 + staleness)^-exponent; 0: no scaling.
        latency_spread: standard deviation of the logarithm of a device's slowness and load.
        seconds_per_example: simulated seconds per training interaction on a median device.
        server_optimizer: the server's optimizer.

    Raises:
        ConfigError: if the buffer is larger than the federation.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False
    asynchronous: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Weighting,
        buffer_size: int | None,
        staleness_exponent: NonNegativeFloat,
        latency_spread: NonNegativeFloat,
        seconds_per_example: PositiveFloat,
        server_optimizer: ServerOptimizer,
    ) -> None:
        num_clients = info.num_clients
        concurrency = info.clients_per_round
        if buffer_size is None:
            buffer_size = max(1, concurrency // _DEFAULT_BUFFERS_PER_COHORT)
        require(
            1 <= buffer_size <= num_clients,
            f"strategy.buffer_size={buffer_size} is impossible: choose between 1 and {num_clients}",
        )
        super().__init__(info, aggregation, server_optimizer)
        self._buffer_size = buffer_size
        self._staleness_exponent = staleness_exponent
        self._latency_spread = latency_spread
        self._seconds_per_example = seconds_per_example
        self._weighting: Weighting = weighting
        self._schedule = AsyncSchedule(info.seed, num_clients, concurrency, self._duration)
        # The parameters that training clients received, by number of server updates before.
        self._sent_parameters: dict[int, Tensors] = {}
        self._staleness: IndexArray = np.zeros(num_clients, np.int64)

    @override
    def client_update(self) -> LocalUpdateRule:
        return PlainUpdate(weighting=self._weighting)

    @property
    @override
    def replies_per_round(self) -> int:
        return self._buffer_size

    @override
    def schedule(self, parameters: Tensors, round_: int) -> tuple[IndexArray, Tensors]:
        """Advance the clock until the buffer is full; the clients in the buffer train now."""
        num_updates = round_ - 1
        self._sent_parameters[num_updates] = parameters
        clients, received = self._schedule.collect(self._buffer_size, round_)
        self._staleness[clients] = num_updates - received
        versions = self._versions(clients, received)
        needed = {*self._schedule.received.tolist(), num_updates}
        self._sent_parameters = {n: p for n, p in self._sent_parameters.items() if n in needed}
        return clients, versions

    @override
    def aggregate(self, updates: Updates, shapes: Shapes) -> Tensors:
        """The mean over the buffer, stale replies scaled down."""
        total = UpdateSum.zeros(shapes, self.info.num_items)
        total.add(self._scaled(updates), self.info.item_tables)
        return self.mean(total)

    @override
    def round_metrics(self) -> Mapping[str, float]:
        return {"simulated_seconds": self._schedule.now}

    @override
    def state(self) -> Tensors:
        """The optimizer's state, the schedule and the parameters that training clients received."""
        state: Arrays = {f"step/{name}": v for name, v in super().state().items()}
        state |= {f"schedule/{name}": value for name, value in self._schedule.state().items()}
        for num_updates, parameters in self._sent_parameters.items():
            state |= {f"sent/{num_updates}/{name}": v for name, v in parameters.items()}
        return state

    @override
    def restore(self, state: Tensors) -> None:
        super().restore(with_prefix(state, "step/"))
        self._schedule.restore(with_prefix(state, "schedule/"))
        sent = with_prefix(state, "sent/")
        versions = {int(name.partition("/")[0]) for name in sent}
        names = self.info.model.shared_names()  # messages rely on the order of the parameters
        self._sent_parameters = {v: {n: sent[f"{v}/{n}"] for n in names} for v in versions}

    def _versions(self, clients: IndexArray, received: IndexArray) -> Tensors:
        """The parameters that the clients train from; see `VERSIONS` if they differ."""
        distinct, version = np.unique(received, return_inverse=True)
        parameters = [self._sent_parameters[int(num_updates)] for num_updates in distinct]
        if len(parameters) == 1:
            return parameters[0]
        stacked: Arrays = {
            name: np.stack([of_version[name] for of_version in parameters])
            for name in parameters[0]
        }
        version_of_client = np.zeros(self.info.num_clients, np.int64)
        version_of_client[clients] = version
        return stacked | {VERSIONS: version_of_client}

    def _scaled(self, updates: Updates) -> Updates:
        """The updates, each scaled down by its staleness."""
        staleness = self._staleness[updates.clients]
        scale = ((1.0 + staleness) ** -self._staleness_exponent).astype(np.float32)
        tensors: Tensors = {}
        for name, value in updates.tensors.items():
            factor = scale[updates.owners] if name in self.info.item_tables else scale
            tensors[name] = value * factor.reshape(-1, *[1] * (value.ndim - 1))
        return replace(updates, tensors=tensors)

    def _duration(self, clients: IndexArray, round_: int, count: int) -> Float64Array:
        """Simulated training times in seconds; see `Duration`."""
        examples = self.info.num_examples[clients]
        seed = self.info.seed
        examples_time = latency(seed, clients, examples, round_, count, self._latency_spread)
        return examples_time * self._seconds_per_example


def _no_clients() -> IndexArray:
    return np.zeros(0, np.int64)


@dataclass(slots=True)
class AsyncSchedule:
    """Which clients train, since which server update, and when they finish.

    Attributes:
        seed: the experiment's seed; it decides which clients are dispatched.
        num_clients: clients of the federation.
        concurrency: number of clients that train at once.
        duration: training times of clients.
        now: simulated time in seconds.
        clients: int64 (n,), codes of the training clients.
        received: int64 (n,), number of server updates in the parameters each received.
        finish_time: float64 (n,), when each replies.
        dispatches: the round of the last dispatch, and the number of earlier dispatches in it.
    """

    seed: int
    num_clients: int
    concurrency: int
    duration: Duration
    now: float = 0.0
    clients: IndexArray = field(default_factory=_no_clients)
    received: IndexArray = field(default_factory=_no_clients)
    finish_time: Float64Array = field(default_factory=lambda: np.zeros(0))
    dispatches: tuple[int, int] = (0, 0)

    def collect(self, count: int, round_: int) -> tuple[IndexArray, IndexArray]:
        """Advance the clock until some clients have replied.

        When a client replies, another one is dispatched with the server's current parameters.
        Replies of the same instant are received before a client is dispatched. A client that
        trains, or whose reply is in the buffer, is not dispatched.

        Args:
            count: number of replies, at most `num_clients`.
            round_: the coming server update, counted from 1.

        Returns:
            int64 (count,), the clients, ascending; and int64 (count,), their `received`.
        """
        replies: list[tuple[int, int]] = []
        while len(replies) < count:
            if not (self.finish_time <= self.now).any():
                self._dispatch([client for client, _ in replies], round_)
            # Among replies of the same instant, the lowest client code is first.
            first = int(np.lexsort((self.clients, self.finish_time))[0])
            self.now = max(self.now, float(self.finish_time[first]))
            replies.append((int(self.clients[first]), int(self.received[first])))
            self._select(np.arange(len(self.clients)) != first)
        pairs = np.array(sorted(replies), np.int64)
        return pairs[:, 0], pairs[:, 1]

    def state(self) -> Arrays:
        """The variable attributes, by name."""
        return {
            "now": np.array(self.now),
            "clients": self.clients,
            "received": self.received,
            "finish_time": self.finish_time,
            "dispatches": np.array(self.dispatches),
        }

    def restore(self, state: Arrays) -> None:
        """Restore a `state`."""
        self.now = float(state["now"])
        self.clients = state["clients"]
        self.received = state["received"]
        self.finish_time = state["finish_time"]
        round_, count = state["dispatches"]
        self.dispatches = (int(round_), int(count))

    def _dispatch(self, in_buffer: list[int], round_: int) -> None:
        """Dispatch idle clients until `concurrency` clients train."""
        busy = [*self.clients.tolist(), *in_buffer]
        idle = np.setdiff1d(np.arange(self.num_clients), busy)
        size = min(self.concurrency - len(self.clients), len(idle))
        if size <= 0:
            return
        last_round, last_count = self.dispatches
        count = last_count + 1 if last_round == round_ else 0
        # The first dispatch of a round draws as a cohort does: if all clients reply at once, the
        # rounds are those of FedAvg.
        rng = generator(self.seed, "cohort", round_, count)
        chosen = np.sort(rng.choice(idle, size, replace=False))
        self.dispatches = (round_, count)
        finish_time = self.now + self.duration(chosen, round_, count)
        self.clients = np.concatenate([self.clients, chosen])
        self.received = np.concatenate([self.received, np.full(size, round_ - 1)])
        self.finish_time = np.concatenate([self.finish_time, finish_time])

    def _select(self, chosen: BoolArray) -> None:
        self.clients = self.clients[chosen]
        self.received = self.received[chosen]
        self.finish_time = self.finish_time[chosen]
