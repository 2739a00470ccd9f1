"""The round loop that all strategies share; a strategy only says how the server moves.

Flower's `Strategy.start` drives it. Cohorts hang on client codes and the seed, never on node ids,
which Flower draws at random.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from time import perf_counter
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedrec_flower.aggregation import (
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.errors import TrainingError
from fedrec_flower.evaluation import MetricSums
from fedrec_flower.interactions import Part
from fedrec_flower.models.base import Tensors
from fedrec_flower.seeding import generator
from fedrec_flower.strategies import messages as wire
from fedrec_flower.strategies.plan import Evaluated, Observer, Outcome, Plan, finish
from fedrec_flower.strategies.selection import Selection

_TIMEOUT = 24 * 3600.0  # seconds; a round of a large simulation may be long
_COUNTS = ("num_clients", "num_users")


class FederatedStrategy(Strategy):
    """Samples cohorts, averages updates, evaluates, and remembers the selected round.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: "all_clients" divides a table row's update by the weight of the whole
            cohort (textbook FedAvg), "touched_clients" by that of the clients that touched it.
    """

    shares: ClassVar[bool] = True  # whether anything travels between clients

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
    ) -> None:
        self.plan, self.observer, self.aggregation = plan, observer, aggregation
        self._job = json.dumps({**plan.job, "shares": self.shares})
        self._parameters: Tensors = {}
        self._participated = np.zeros(plan.num_clients, np.int64)
        self._seconds = {"train": 0.0, "evaluate": 0.0}
        self._bytes_up = 0
        self._asked, self._started = 0, perf_counter()
        self._selection = Selection(plan.evaluator)

    @abstractmethod
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Move the global parameters by the averaged update."""

    def move(self, parameters: Tensors, total: UpdateSum) -> Tensors:
        """The next global parameters, from the sum over the cohort: a step by its mean."""
        return self.step(parameters, self._mean(total))

    def run(self, grid: Grid, initial: Tensors) -> Outcome:
        """Run all rounds, then evaluate the selected one on every client.

        Args:
            grid: carries messages to the nodes.
            initial: initial shared parameters; nothing if the strategy shares nothing.

        Raises:
            TrainingError: if a node fails or stays silent, or training diverges.
        """
        self._parameters, start = initial, wire.to_record(initial)
        self._hosts = wire.Hosts.discover(grid, self._job, _TIMEOUT)
        nothing = ConfigRecord()
        untrained = self.configure_evaluate(0, start, nothing, grid)
        self.aggregate_evaluate(0, grid.send_and_receive(untrained, timeout=_TIMEOUT))
        self.start(grid, start, self.plan.num_rounds, timeout=_TIMEOUT)
        return Outcome(
            selected=self._evaluate_selected(grid),
            best_test=self._selection.best_test,
            rounds_participated=self._participated,
            seconds=self._seconds,
            bytes_down=wire.num_bytes(start),
            bytes_up=round(self._bytes_up / max(1, int(self._participated.sum()))),
        )

    def summary(self) -> None:
        """Flower asks strategies to log themselves; the run folder holds the configuration."""

    # --- training ---------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort and address each node that hosts a part of it."""
        del config, grid
        self._asked, self._started = 0, perf_counter()
        cohort = _sample(self.plan, "cohort", server_round, self.plan.clients_per_round)
        self._participated[cohort] += 1
        for node, clients in self._hosts.share(cohort).items():
            if clients:
                self._asked += 1
                request = {"job": self._job, "round": server_round, "clients": clients}
                yield wire.pack("train", node, arrays, request, server_round)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the updates and move the global parameters."""
        ordered = self._hosts.in_order(wire.checked(replies, self._asked))
        total = wire.update_sum(ordered)
        self._bytes_up += sum(int(wire.metrics_of(reply)["bytes_up"]) for reply in ordered)
        loss = float("nan")
        if total.weight:  # a cohort without training data changes nothing
            self._parameters = self.move(self._parameters, total)
            self._require_finite(server_round)
            losses = [float(wire.metrics_of(reply)["loss"]) for reply in ordered]
            loss = sum(losses) / total.weight
        self._seconds["train"] += perf_counter() - self._started
        self.observer.trained(server_round, loss, self.plan.clients_per_round)
        return wire.to_record(self._parameters), MetricRecord({"loss": loss})

    def _mean(self, total: UpdateSum) -> Tensors:
        if self.aggregation == "touched_clients":
            return mean_over_touching_clients(total, self.plan.item_tables)
        return mean_over_all_clients(total)

    def _require_finite(self, round_: int) -> None:
        for name, value in self._parameters.items():
            if not np.isfinite(value).all():
                advice = "lower the learning rates or strategy.server_learning_rate"
                raise TrainingError(f"round {round_}: {name} is no longer finite; {advice}")

    # --- evaluation -------------------------------------------------------------------------

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Every few rounds, ask all clients or a sample of them; the untrained model too.

        Nodes keep a snapshot of their personal parameters in the slot that does not hold the
        selected round, so that they can go back to that round without another message.
        """
        del config, grid
        self._asked, self._started = 0, perf_counter()
        evaluator, last = self.plan.evaluator, self.plan.num_rounds
        if server_round % evaluator.every and server_round != last:
            return
        size = evaluator.num_clients or self.plan.num_clients
        # The same clients at every evaluation: rounds are compared, not samples.
        sample = _sample(self.plan, "evaluation-cohort", 0, size)
        slot = self._selection.free_slot
        request = {"slot": slot, "snapshot": slot, "note": False}
        yield from self._evaluation_messages(sample, arrays, request, server_round)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Add up the sums, remember the round if validation prefers it."""
        if not self._asked:
            return None
        slot = self._selection.free_slot
        result = self._evaluated(replies, server_round, slot, self._parameters)
        self._selection.see(result)
        if server_round:  # the untrained model is evaluated as part of the set-up
            self._seconds["evaluate"] += perf_counter() - self._started
        self.observer.evaluated(server_round, result.metrics, result.num_clients)
        return MetricRecord({**result.metrics[Part.VALIDATION]})

    def _evaluate_selected(self, grid: Grid) -> Evaluated:
        """Evaluate the selected round on every client; nodes note per-user results."""
        self._asked, self._started = 0, perf_counter()
        best = self._selection.selected
        everyone = np.arange(self.plan.num_clients)
        request = {"slot": best.slot, "snapshot": "", "note": True}
        arrays = wire.to_record(best.parameters)
        asked = self._evaluation_messages(everyone, arrays, request, best.round)
        replies = grid.send_and_receive(asked, timeout=_TIMEOUT)
        result = self._evaluated(replies, best.round, best.slot, best.parameters)
        self._seconds["evaluate"] += perf_counter() - self._started
        return result

    def _evaluation_messages(
        self, clients: NDArray[np.int64], arrays: ArrayRecord, request: dict[str, Any], round_: int
    ) -> Iterator[Message]:
        # A node without a sampled client is asked as well: it must keep its snapshot.
        for node, hosted in self._hosts.share(clients).items():
            self._asked += 1
            config = {"job": self._job, "clients": hosted, **request}
            yield wire.pack("evaluate", node, arrays, config, round_)

    def _evaluated(
        self, replies: Iterable[Message], round_: int, slot: str, parameters: Tensors
    ) -> Evaluated:
        ordered = self._hosts.in_order(wire.checked(replies, self._asked))
        sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
        for reply in ordered:
            for part, of_node in wire.metric_sums(reply).items():
                sums[part].merge(of_node)
        metrics, errors = finish(self.plan.evaluator, sums)
        found = [wire.metrics_of(reply) for reply in ordered]
        counts = {key: int(sum(reply[key] for reply in found)) for key in _COUNTS}
        return Evaluated(round_, slot, parameters, metrics, errors, **counts)


def _sample(plan: Plan, role: str, round_: int, size: int) -> NDArray[np.int64]:
    """Distinct client codes, ascending; the same for any engine and any number of nodes."""
    rng = generator(plan.seed, role, round_)
    return np.sort(rng.choice(plan.num_clients, size, replace=False))
