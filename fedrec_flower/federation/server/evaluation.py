"""How a run is judged: rounds are evaluated on the clients, and the selected one is remembered."""

from collections.abc import Iterable
from time import perf_counter

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray

from fedrec_flower.communication.failures import ClientFailures, format_counts, node_error
from fedrec_flower.communication.schema import EvaluateReply
from fedrec_flower.communication.validation import (
    EvaluateReplySchema,
    ValidReplies,
    require_all_replies,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import FailureKind
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.metric_sums import MetricSums
from fedrec_flower.federation.server.dispatch import Post
from fedrec_flower.federation.server.model_selection import Selection
from fedrec_flower.federation.server.plan import Evaluated, Observer, Plan, finish
from fedrec_flower.federation.server.sampling import sample_clients


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
        self._selection, self._slot = Selection(plan.evaluator, plan.release), ""
        self._unkept: set[int] = set()  # nodes without a confirmed snapshot
        self._expected_scores = EvaluateReplySchema(plan.bounds)

    def _evaluate(self, grid: Grid, round_: int) -> None:
        asked = list(self.configure_evaluate(round_, ArrayRecord(), ConfigRecord(), grid))
        if asked:
            self.aggregate_evaluate(round_, self._post.exchange(grid, asked))
            if self._selection.selected.round == round_:
                self._ask_to_keep(grid, round_)  # who never does will say so at the end

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
        sample = self._scored(sample_clients(self.plan, "evaluation-cohort", 0, size))
        yield from self._requests(server_round, sample, self._selection.free_slot)

    def _scored(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those of some clients that are scored: all or none."""
        return clients if self.plan.measures else clients[:0]

    def _requests(self, round_: int, clients: NDArray[np.int64], slot: str) -> Iterable[Message]:
        """Ask every node to keep a snapshot in a slot, and to evaluate some clients by it."""
        about = {"slot": slot, "snapshot": slot, "note": False, "round": round_}
        return self._post.requests("evaluate", clients, self._parameters, about, round_)

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> MetricRecord | None:
        """Add up the sums, remember the round if validation prefers it.

        Raises:
            TrainingError: if too few clients were evaluated soundly.
        """
        slot, received = self._selection.free_slot, list(replies)
        self._slot, self._unkept = slot, {*self._post.asked} - _working(received)
        sound = ValidReplies.collect(received, self._post.asked, self._expected_scores)
        self._require_enough(server_round, sound)
        result = self._evaluated(sound, server_round, slot, self._parameters)
        self._selection.see(result)
        if server_round:  # the untrained model is evaluated as part of the set-up
            self._seconds["evaluate"] += perf_counter() - self._started
        self.observer.evaluated(server_round, result.metrics, result.num_clients)
        return MetricRecord({**result.metrics[Part.VALIDATION]})

    def _require_enough(self, round_: int, sound: ValidReplies[EvaluateReply]) -> None:
        losses, least = ClientFailures(f"evaluation of round {round_}"), self.plan.min_completion
        losses.add(sound.failures)
        asked = sum(map(len, self._post.asked.values()))
        heard = sum(scored.num_clients for scored in sound.replies)
        if (heard or not self.plan.measures) and heard >= least * asked - 1e-9:
            losses.warn()
        elif words := node_error(sound.failures):
            raise TrainingError(f"a node failed: {words}")
        else:
            raise TrainingError(
                f"round {round_}: only {heard} of {asked} clients were evaluated soundly "
                f"({format_counts(losses.kinds)}): mend the clients, or lower "
                f"min_completion={least:g}"
            )

    def _snapshot(self, grid: Grid, round_: int) -> bool:
        """Whether all nodes keep the current round, which they do once asked, or evaluated."""
        if not self._is_evaluated(round_):
            self._slot, self._unkept = self._selection.free_slot, {*self._post.hosts.clients}
        self._ask_to_keep(grid, round_)
        return not self._unkept

    def _ask_to_keep(self, grid: Grid, round_: int) -> None:
        """Ask the nodes that have not kept a snapshot of the current round to do so."""
        if not self._unkept:
            return
        requests = self._requests(round_, np.zeros(0, np.int64), self._slot)
        asked = [message for message in requests if message.metadata.dst_node_id in self._unkept]
        self._unkept -= _working(self._post.exchange(grid, asked))

    def _is_over(self) -> bool:
        patience = self.plan.patience
        impatient = patience is not None and self._selection.waited >= patience
        return impatient or self._round == self.plan.num_rounds or self._is_spent()

    def _is_spent(self) -> bool:
        """Whether the budget of privacy ends the run; what was released until now can be used.

        Raises:
            TrainingError: if nothing can be.
        """
        if self.plan.curator.is_spent and not self._round:
            raise TrainingError(
                "privacy.target_epsilon is spent on rounds of this folder that were interrupted, "
                "and no checkpoint keeps what they learnt: allow more in a new folder, and set "
                "checkpoint_every=1 there"
            )
        return self.plan.curator.is_spent

    def _is_evaluated(self, round_: int) -> bool:
        last = round_ == self.plan.num_rounds or (round_ and self.plan.curator.is_spent)
        return last or not round_ % self.plan.evaluator.every

    def _evaluate_selected(self, grid: Grid) -> Evaluated:
        """Evaluate the selected round on every client; nodes note per-user results."""
        self._started = perf_counter()
        best = self._selection.selected
        everyone = self._scored(np.arange(self.plan.num_clients))
        about = {"slot": best.slot, "snapshot": "", "note": True, "round": best.round}
        asked = list(self._post.requests("evaluate", everyone, best.parameters, about, best.round))
        replies = require_all_replies(self._post.exchange(grid, asked), len(asked))
        sound = ValidReplies.collect(replies, self._post.asked, self._expected_scores)
        if len(sound.replies) < len(asked):
            failures = sound.failures.values()
            lost = next(why for why in failures if why.kind != FailureKind.REPEATED)
            raise TrainingError(f"round {best.round} cannot be evaluated on every client: {lost}")
        result = self._evaluated(sound, best.round, best.slot, best.parameters)
        self._seconds["evaluate"] += perf_counter() - self._started
        return result

    def _evaluated(
        self, sound: ValidReplies[EvaluateReply], round_: int, slot: str, parameters: Tensors
    ) -> Evaluated:
        sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
        for scored in sound.replies:
            for part, of_node in scored.sums.items():
                sums[part].merge(of_node)
        metrics, errors = finish(self.plan.evaluator, sums)
        num_clients = sum(scored.num_clients for scored in sound.replies)
        num_users = sum(scored.num_users for scored in sound.replies)
        return Evaluated(round_, slot, parameters, metrics, errors, num_clients, num_users)


def _working(replies: Iterable[Message]) -> set[int]:
    """The nodes that did as they were asked, whatever they say."""
    return {reply.metadata.src_node_id for reply in replies if not reply.has_error()}
