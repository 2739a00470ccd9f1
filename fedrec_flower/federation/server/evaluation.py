"""Evaluation of rounds on the clients, and the nodes' snapshots of evaluated rounds."""

from collections.abc import Iterable
from time import perf_counter

import numpy as np
from flwr.app import Message
from numpy.typing import NDArray

from fedrec_flower.communication.failures import ClientFailures, format_counts, node_error
from fedrec_flower.communication.schema import EVALUATE, EvaluateReply
from fedrec_flower.communication.validation import (
    EvaluateReplySchema,
    ValidReplies,
    require_all_replies,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import FailureKind
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import MetricSums
from fedrec_flower.federation.results import Evaluated, finish
from fedrec_flower.federation.server.checkpointing import ServerState
from fedrec_flower.federation.server.dispatch import Dispatcher
from fedrec_flower.federation.server.model_selection import ModelSelection
from fedrec_flower.federation.server.plan import Plan
from fedrec_flower.federation.server.sampling import sample_clients

_ROUNDING = 1e-9  # share times number of clients may exceed a whole number by so much


class RoundEvaluation:
    """Evaluates the current round on clients and lets the nodes keep snapshots of it.

    A snapshot holds a node's personal parameters. It lies in a slot that holds neither the
    selected round nor a round of a checkpoint, so that nodes can return to these.

    Args:
        plan: the run.
        evaluator: defines the metrics and the number of clients to evaluate.
        selection: chooses among the evaluated rounds.
        state: the server's state, whose round and parameters are evaluated.
        dispatcher: sends the requests.
    """

    def __init__(
        self,
        plan: Plan,
        evaluator: Evaluator,
        selection: ModelSelection,
        state: ServerState,
        dispatcher: Dispatcher,
    ) -> None:
        self._plan, self._evaluator = plan, evaluator
        self._selection, self._state, self._dispatcher = selection, state, dispatcher
        self._schema = EvaluateReplySchema(plan.bounds)
        self._snapshot_round = -1
        self._slot = ""
        self._nodes_without_snapshot: set[int] = set()

    @property
    def slot(self) -> str:
        """Name of the snapshot of the current round."""
        return self._slot

    @property
    def num_nodes_without_snapshot(self) -> int:
        """Number of nodes that have not confirmed the snapshot of the current round."""
        return len(self._nodes_without_snapshot)

    def evaluate(self) -> Evaluated:
        """Evaluate the current round and compare it with the selected one.

        Raises:
            TrainingError: if too few clients send valid evaluation replies.
        """
        started, round_ = perf_counter(), self._state.round
        size = self._evaluator.num_clients or self._plan.num_clients
        # The same clients at every evaluation: rounds are compared, not samples.
        sample = sample_clients(self._plan, "evaluation-cohort", 0, size)
        slot = self._selection.free_slot
        requests = list(self._requests(self._measured(sample), slot))
        received = list(self._dispatcher.exchange(requests))
        self._slot, self._snapshot_round = slot, round_
        self._nodes_without_snapshot = {*self._dispatcher.asked} - _successful_nodes(received)
        valid = ValidReplies.collect(received, self._dispatcher.asked, self._schema)
        self._require_enough(valid)
        result = self._summarize(valid, round_, slot, self._state.parameters)
        self._selection.see(result)
        if round_:  # the untrained model is evaluated as part of the set-up
            self._state.add_seconds("evaluate", started)
        return result

    def keep_snapshot(self) -> bool:
        """Let every node keep a snapshot of the current round; return whether all of them do.

        Nodes keep one when they evaluate, so only the others are asked.
        """
        if self._snapshot_round != self._state.round:
            self._slot, self._snapshot_round = self._selection.free_slot, self._state.round
            self._nodes_without_snapshot = {*self._dispatcher.nodes.clients}
        if self._nodes_without_snapshot:
            requests = [
                message
                for message in self._requests(np.zeros(0, np.int64), self._slot)
                if message.metadata.dst_node_id in self._nodes_without_snapshot
            ]
            replies = self._dispatcher.exchange(requests)
            self._nodes_without_snapshot -= _successful_nodes(replies)
        return not self._nodes_without_snapshot

    def evaluate_selected(self) -> Evaluated:
        """Evaluate the selected round on every client; nodes store per-user results.

        Raises:
            TrainingError: if a node fails, or a reply is missing or invalid.
        """
        started, best = perf_counter(), self._selection.selected
        clients = self._measured(np.arange(self._plan.num_clients))
        fields = {"slot": best.slot, "snapshot": "", "note": True, "round": best.round}
        requests = list(
            self._dispatcher.requests(EVALUATE, clients, best.parameters, fields, best.round)
        )
        replies = require_all_replies(self._dispatcher.exchange(requests), len(requests))
        valid = ValidReplies.collect(replies, self._dispatcher.asked, self._schema)
        if len(valid.replies) < len(requests):
            failures = valid.failures.values()
            first = next(each for each in failures if each.kind != FailureKind.REPEATED)
            raise TrainingError(f"round {best.round} cannot be evaluated on every client: {first}")
        result = self._summarize(valid, best.round, best.slot, best.parameters)
        self._state.add_seconds("evaluate", started)
        return result

    def _measured(self, clients: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return those of some clients that are evaluated: all or none."""
        return clients if self._plan.measures else clients[:0]

    def _requests(self, clients: NDArray[np.int64], slot: str) -> Iterable[Message]:
        """Ask every node to keep a snapshot in a slot, and to evaluate some clients from it."""
        round_, parameters = self._state.round, self._state.parameters
        fields = {"slot": slot, "snapshot": slot, "note": False, "round": round_}
        return self._dispatcher.requests(EVALUATE, clients, parameters, fields, round_)

    def _require_enough(self, valid: ValidReplies[EvaluateReply]) -> None:
        round_, least = self._state.round, self._plan.min_completion
        failures = ClientFailures(f"evaluation of round {round_}")
        failures.add(valid.failures)
        num_asked = sum(map(len, self._dispatcher.asked.values()))
        num_evaluated = sum(reply.num_clients for reply in valid.replies)
        any_needed = self._plan.measures
        if (num_evaluated or not any_needed) and num_evaluated >= least * num_asked - _ROUNDING:
            failures.warn()
        elif words := node_error(valid.failures):
            raise TrainingError(f"a node failed: {words}")
        else:
            raise TrainingError(
                f"round {round_}: only {num_evaluated} of {num_asked} clients were evaluated "
                f"soundly ({format_counts(failures.kinds)}): mend the clients, or lower "
                f"min_completion={least:g}"
            )

    def _summarize(
        self, valid: ValidReplies[EvaluateReply], round_: int, slot: str, parameters: Tensors
    ) -> Evaluated:
        sums = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
        for reply in valid.replies:
            for part, of_node in reply.sums.items():
                sums[part].merge(of_node)
        metrics, errors = finish(self._evaluator, sums)
        num_clients = sum(reply.num_clients for reply in valid.replies)
        num_users = sum(reply.num_users for reply in valid.replies)
        return Evaluated(round_, slot, parameters, metrics, errors, num_clients, num_users)


def _successful_nodes(replies: Iterable[Message]) -> set[int]:
    """Return the nodes that replied without an error; the content is not checked here."""
    return {reply.metadata.src_node_id for reply in replies if not reply.has_error()}
