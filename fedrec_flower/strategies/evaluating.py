"""How a run is judged: rounds are evaluated on the clients, and the selected one is remembered."""

from collections.abc import Iterable
from time import perf_counter

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedrec_flower.evaluation import MetricSums
from fedrec_flower.interactions import Part
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.messages import Post
from fedrec_flower.strategies.plan import Evaluated, Observer, Plan, finish
from fedrec_flower.strategies.replies import checked, metric_sums, metrics_of
from fedrec_flower.strategies.sampling import sample_clients
from fedrec_flower.strategies.selection import Selection

_COUNTS = ("num_clients", "num_users")


class EvaluatingStrategy(Strategy):
    """The half of every strategy that evaluates; see `base.FederatedStrategy` for the other.

    Args:
        plan: the run.
        observer: hears of every round.
    """

    _post: Post  # known once the nodes are

    def __init__(self, plan: Plan, observer: Observer) -> None:
        self.plan, self.observer = plan, observer
        self._parameters: Tensors = {}
        self._seconds = {"train": 0.0, "evaluate": 0.0}
        self._round, self._started = 0, perf_counter()
        self._selection, self._slot = Selection(plan.evaluator), ""

    def _evaluate(self, grid: Grid, round_: int) -> None:
        asked = list(self.configure_evaluate(round_, ArrayRecord(), ConfigRecord(), grid))
        if asked:
            self.aggregate_evaluate(round_, self._post.exchange(grid, asked))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Every few rounds, ask all clients or a sample of them; the untrained model too.

        Nodes keep a snapshot of their personal parameters in a slot that holds neither the
        selected round nor what a checkpoint needs, so that they can go back without a message.
        """
        del arrays, config, grid
        self._started = perf_counter()
        if not self._is_evaluated(server_round):
            return
        evaluator = self.plan.evaluator
        size = evaluator.num_clients or self.plan.num_clients
        # The same clients at every evaluation: rounds are compared, not samples.
        sample = sample_clients(self.plan, "evaluation-cohort", 0, size)
        yield from self._requests(server_round, sample, self._selection.free_slot)

    def _requests(self, round_: int, clients: NDArray[np.int64], slot: str) -> Iterable[Message]:
        """Ask every node to keep a snapshot in a slot, and to evaluate some clients by it."""
        about = {"slot": slot, "snapshot": slot, "note": False, "round": round_}
        return self._post.requests("evaluate", clients, self._parameters, about, round_)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Add up the sums, remember the round if validation prefers it."""
        slot = self._slot = self._selection.free_slot
        result = self._evaluated(replies, server_round, slot, self._parameters)
        self._selection.see(result)
        if server_round:  # the untrained model is evaluated as part of the set-up
            self._seconds["evaluate"] += perf_counter() - self._started
        self.observer.evaluated(server_round, result.metrics, result.num_clients)
        return MetricRecord({**result.metrics[Part.VALIDATION]})

    def _snapshot(self, grid: Grid, round_: int) -> str:
        """Where the nodes keep the current round: they do if it was evaluated, or are asked to."""
        if not self._is_evaluated(round_):
            self._slot = self._selection.free_slot
            nobody = np.zeros(0, np.int64)
            asked = list(self._requests(round_, nobody, self._slot))
            checked(self._post.exchange(grid, asked), len(asked))
        return self._slot

    def _is_over(self) -> bool:
        patience = self.plan.patience
        impatient = patience is not None and self._selection.waited >= patience
        return impatient or self._round == self.plan.num_rounds

    def _is_evaluated(self, round_: int) -> bool:
        return not round_ % self.plan.evaluator.every or round_ == self.plan.num_rounds

    def _evaluate_selected(self, grid: Grid) -> Evaluated:
        """Evaluate the selected round on every client; nodes note per-user results."""
        self._started = perf_counter()
        best = self._selection.selected
        everyone = np.arange(self.plan.num_clients)
        about = {"slot": best.slot, "snapshot": "", "note": True, "round": best.round}
        asked = list(self._post.requests("evaluate", everyone, best.parameters, about, best.round))
        replies = self._post.exchange(grid, asked)
        result = self._evaluated(replies, best.round, best.slot, best.parameters)
        self._seconds["evaluate"] += perf_counter() - self._started
        return result

    def _evaluated(
        self, replies: Iterable[Message], round_: int, slot: str, parameters: Tensors
    ) -> Evaluated:
        ordered = self._post.hosts.in_order(checked(replies, len(self._post.asked)))
        sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
        for reply in ordered:
            for part, of_node in metric_sums(reply).items():
                sums[part].merge(of_node)
        metrics, errors = finish(self.plan.evaluator, sums)
        found = [metrics_of(reply) for reply in ordered]
        counts = {key: int(sum(reply[key] for reply in found)) for key in _COUNTS}
        return Evaluated(round_, slot, parameters, metrics, errors, **counts)
