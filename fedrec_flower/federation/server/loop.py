"""The round loop of the server: sample a cohort, train, evaluate, checkpoint.

The loop is our own, because Flower's neither tries a round again nor starts in the middle. Cohorts
depend on client codes and the seed, never on node ids, which Flower draws at random.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
from flwr.app import Message
from flwr.serverapp import Grid

from fedrec_flower.communication.failures import ClientFailures, format_counts, node_error
from fedrec_flower.communication.limits import DIVERGED, DIVERGENCE_FIX
from fedrec_flower.communication.schema import TRAIN, TrainReply
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg, SecureAggregation
from fedrec_flower.communication.validation import (
    ReplySchema,
    ValidReplies,
    each_update,
    update_sum,
)
from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.instantiate import class_path
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Shapes, Tensors
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.federation.results import Outcome, TrainedRound
from fedrec_flower.federation.server.callback import Callback
from fedrec_flower.federation.server.checkpointing import (
    ServerState,
    restore_checkpoint,
    take_checkpoint,
)
from fedrec_flower.federation.server.dispatch import (
    Dispatcher,
    JobAddress,
    NodeDirectory,
    num_bytes,
    to_record,
)
from fedrec_flower.federation.server.evaluation import RoundEvaluation
from fedrec_flower.federation.server.model_selection import ModelSelection
from fedrec_flower.federation.server.plan import Plan
from fedrec_flower.federation.server.sampling import sample_clients
from fedrec_flower.federation.server.secure_round import gather
from fedrec_flower.models.abilities import Regularized, ServerPostprocess
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.mechanism import ServerMechanism
from fedrec_flower.strategies.base import VERSIONS, FederatedStrategy, RoundInfo
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate

_LOG = logging.getLogger(__name__)

_ROUNDING = 1e-9  # 0.56 of 50 is a little above 28 in floating point


class Server:
    """Runs the rounds of one federation.

    Args:
        strategy: the algorithm.
        plan: the facts of the run.
        model: the recommender, without users.
        evaluator: when to evaluate, on how many clients, and which metric selects the round.
        curator: the server's side of privacy; chooses the cohort and releases the sum.
        secure_aggregation: whether the server may see the sum of each node, or only that of all.
        callbacks: called in this order at the start, after each round and evaluation, and with each
            checkpoint.
    """

    dispatcher: Dispatcher
    """Sends messages to the nodes; set when the nodes are known."""

    def __init__(
        self,
        strategy: FederatedStrategy,
        plan: Plan,
        *,
        model: Recommender,
        evaluator: Evaluator,
        curator: ServerMechanism,
        secure_aggregation: SecureAggregation,
        callbacks: Sequence[Callback] = (),
    ) -> None:
        self.strategy, self.plan = strategy, plan
        self.model, self.evaluator = model, evaluator
        self.curator, self.secure_aggregation = curator, secure_aggregation
        self.callbacks = callbacks
        self._state = ServerState.initial(plan.num_clients)
        self._selection = ModelSelection(evaluator, plan.release)

    @property
    def parameters(self) -> Tensors:
        """The global parameters."""
        return self._state.parameters

    def resume(self, checkpoint: Checkpoint) -> None:
        """Restore the state of a checkpoint, so that `run` continues after its round."""
        self._state = restore_checkpoint(checkpoint, self.strategy, self._selection, self.curator)

    def run(self, grid: Grid, initial: Tensors) -> Outcome:
        """Run all rounds, then evaluate the selected one on every client.

        Args:
            grid: carries messages to the nodes.
            initial: initial shared parameters; empty if the strategy does not communicate.

        Raises:
            TrainingError: if nodes fail or stay silent too often, or training diverges.
        """
        self.dispatcher = self._connect(grid)
        state = self._state
        evaluation = RoundEvaluation(
            self.plan, self.evaluator, self._selection, state, self.dispatcher
        )
        if not state.round:  # no checkpoint was restored
            state.parameters = self.strategy.initialize(initial)
            self._evaluate(evaluation)
        for callback in self.callbacks:
            callback.on_start(state.round)
        while not self._is_over():
            state.round += 1
            self._train()
            self._evaluate(evaluation)
            self._checkpoint(evaluation)
        ended_early = state.round < self.plan.num_rounds
        if ended_early and self.curator.is_spent:
            _LOG.warning(
                "training ends after round %d of %d: rounds that were trained again after an "
                "interruption cost privacy.target_epsilon too, and another would exceed it",
                *(state.round, self.plan.num_rounds),
            )
        return Outcome(
            selected=evaluation.evaluate_selected(),
            best_test=self._selection.best_test,
            rounds_participated=state.participated,
            seconds=state.seconds,
            bytes_down=num_bytes(to_record(initial | self.strategy.extra_tensors())),
            bytes_up=round(state.bytes_up / max(1, int(state.participated.sum()))),
            failures=dict(state.failures),
            stopped_at=state.round if ended_early else None,
            privacy=self.curator.facts(),
        )

    def _connect(self, grid: Grid) -> Dispatcher:
        """Find the nodes, and check that secure aggregation is possible with them."""
        job = replace(
            self.plan.job,
            communicates=self.strategy.communicates,
            individual_updates=self.strategy.needs_individual_updates,
            local=local_update_config(self.strategy.client_update()),
        )
        place = "" if self.plan.place is None else self.plan.place.to_json()
        address = JobAddress(job.to_json(), place, self.plan.reply_timeout)
        nodes = NodeDirectory.discover(
            grid, address, self.plan.num_clients, self.plan.node_patience
        )
        secure = self.secure_aggregation
        secure.check(len(nodes.clients), self.strategy.replies_per_round)
        if isinstance(secure, SecAgg):
            counted = secure.counted([*map(len, nodes.clients.values())])
            self.curator.check_secure_aggregation(*counted, secure.min_clients)
        return Dispatcher(grid, address, nodes)

    # --- when -------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        """Return whether the run ends after the current round."""
        patience = self.plan.patience
        impatient = patience is not None and self._selection.waited >= patience
        return impatient or self._state.round == self.plan.num_rounds or self._is_stopped()

    def _is_stopped(self) -> bool:
        """Return whether the budget of privacy or a callback ends the run.

        Raises:
            TrainingError: if the budget is spent before the first round.
        """
        if self.curator.is_spent and not self._state.round:
            raise TrainingError(
                "privacy.target_epsilon is spent on rounds of this folder that were interrupted, "
                "and no checkpoint keeps what they learnt: allow more in a new folder, and set "
                "checkpoint_every=1 there"
            )
        return self.curator.is_spent or any(callback.should_stop() for callback in self.callbacks)

    def _is_evaluated(self) -> bool:
        """Return whether the current round is evaluated: every few rounds, and the last one."""
        round_ = self._state.round
        if round_ and self._is_stopped():
            return True
        return round_ == self.plan.num_rounds or round_ % self.evaluator.every == 0

    # --- evaluation and checkpoints ---------------------------------------------------------

    def _evaluate(self, evaluation: RoundEvaluation) -> None:
        if not self._is_evaluated():
            return
        result = evaluation.evaluate()
        for callback in self.callbacks:
            callback.after_evaluation(result)
        if self._selection.selected.round == result.round:
            evaluation.keep_snapshot()  # a node that never does fails the evaluation at the end

    def _checkpoint(self, evaluation: RoundEvaluation) -> None:
        """Make a checkpoint every few rounds and after the last one, if every node can go back."""
        every, round_ = self.plan.checkpoint_every, self._state.round
        if every is None or (round_ % every and not self._is_over()):
            return
        if not evaluation.keep_snapshot():
            _LOG.warning(
                "round %d: no checkpoint, for %d nodes did not keep their clients' parameters",
                *(round_, evaluation.num_nodes_without_snapshot),
            )
            return
        checkpoint = take_checkpoint(
            self._state, self.strategy, self._selection, self.curator, evaluation.slot
        )
        for callback in self.callbacks:
            callback.on_checkpoint(checkpoint)

    # --- training ---------------------------------------------------------------------------

    def _train(self) -> None:
        """Train the current round; try again with a fresh cohort if too few clients reply."""
        started, round_ = perf_counter(), self._state.round
        failures = ClientFailures(f"round {round_}", named=not self.curator.noisy)
        # Where any round counts, none is tried again: privacy accounts for one cohort a round.
        num_retries = self.plan.max_retries if self.plan.min_completion > 0 else 0
        for attempt in range(1 + num_retries):
            requests = list(self._train_requests(attempt))
            schema = self.reply_schema()
            valid = gather(
                self.secure_aggregation, requests, self.dispatcher, schema, self._least_replies
            )
            num_replied = sum(reply.replied for reply in valid.replies)
            if valid.failures and not num_replied and {*valid.failures.values()} == {DIVERGED}:
                # Another cohort would diverge too.
                raise TrainingError(f"round {round_}: no client's loss is finite; {DIVERGENCE_FIX}")
            failures.add(valid.failures)
            self._state.bytes_up += sum(reply.bytes_up for reply in valid.replies)
            if self._is_complete(valid, num_replied):
                failures.warn()
                self._update_parameters(valid.replies, num_replied, schema.shapes)
                self._report(valid.replies, num_replied, failures, attempt)
                self._state.add_seconds("train", started)
                return
        raise self._failure(failures, valid.failures)

    def _train_requests(self, attempt: int) -> Iterable[Message]:
        """Choose the cohort, and address each node that hosts a part of it."""
        round_, parameters = self._state.round, self._state.parameters
        all_nodes = False
        if self.strategy.asynchronous:
            cohort, parameters = self.strategy.schedule(parameters, round_)
        else:
            size = self.plan.clients_per_round
            sampled = sample_clients(self.plan, "cohort", round_, size, attempt)
            cohort = self.curator.cohort(sampled, round_)
            # Whether masks let a noisy sum out must not depend on the nodes of the sampled clients.
            all_nodes = self.curator.noisy and isinstance(self.secure_aggregation, SecAgg)
        self._state.participated[cohort] += 1
        extra = self.strategy.extra_tensors()
        if extra:  # else these very parameters were serialized for the evaluation
            parameters = parameters | extra
        fields = {"round": round_, "attempt": attempt, "clip_norm": self.curator.clip_norm}
        return self.dispatcher.requests(
            TRAIN, cohort, parameters, fields, round_, all_nodes=all_nodes
        )

    def reply_schema(self) -> ReplySchema:
        """Return the schema of a valid training reply of the current round."""
        model, strategy = self.model, self.strategy
        solved = isinstance(model, ClosedFormRecommender)
        hides_rows = isinstance(self.secure_aggregation, SecAgg) and not strategy.needs_row_weights
        return ReplySchema(
            self._statistic_shapes if solved else self._update_shapes(),
            strategy.item_tables,
            self.plan.num_items,
            self.plan.limits,
            strategy.needs_individual_updates,
            statistics=solved,
            row_weights=not solved and not hides_rows,
            losses_below_zero=isinstance(model, Regularized) and model.may_be_negative,
        )

    def _update_shapes(self) -> Shapes:
        """Full shape of every tensor of an update."""
        parameters = self._state.parameters
        axes = 1 if VERSIONS in parameters else 0  # the axis of versions
        untrained = {*self.model.frozen, VERSIONS}
        shapes = {n: value.shape[axes:] for n, value in parameters.items() if n not in untrained}
        extra = {name: value.shape for name, value in self.strategy.extra_tensors().items()}
        return shapes | extra | self.curator.extra_tensors

    @cached_property
    def _statistic_shapes(self) -> Shapes:
        """Shapes of the statistics of a model in closed form, which depend on no user."""
        if not isinstance(self.model, ClosedFormRecommender) or not self.strategy.communicates:
            return {}
        return self.model.statistic_shapes(self._state.parameters)

    @property
    def _least_replies(self) -> float:
        """Number of clients that must send valid replies."""
        return self.plan.min_completion * self.strategy.replies_per_round - _ROUNDING

    def _is_complete(self, valid: ValidReplies[TrainReply], num_replied: int) -> bool:
        """Return whether the round counts."""
        if not valid.replies and node_error(valid.failures):
            return False  # nodes that fail are not absent clients, which min_completion may allow
        return num_replied >= self._least_replies

    def _update_parameters(
        self, replies: list[TrainReply], num_replied: int, shapes: Shapes
    ) -> None:
        """Let the strategy move the global parameters.

        Raises:
            TrainingError: if a parameter is not finite afterwards.
        """
        weight = sum(reply.weight for reply in replies)
        if not weight and not self.curator.noisy:
            return  # the cohort has no training data
        round_ = self._state.round
        moved = self._moved(replies, num_replied, shapes)
        if isinstance(self.model, ServerPostprocess):
            rng = generator(self.plan.seed, "settle", round_)
            moved = self.model.after_server_step(moved, rng)
        self._state.parameters = moved
        for name, value in self._state.parameters.items():
            if not np.isfinite(value).all():
                raise TrainingError(
                    f"round {round_}: {name} is no longer finite; lower the learning rates or "
                    "strategy.server_learning_rate"
                )

    def _moved(self, replies: list[TrainReply], num_replied: int, shapes: Shapes) -> Tensors:
        """Return the parameters after the strategy's step."""
        strategy, parameters, round_ = self.strategy, self._state.parameters, self._state.round
        if strategy.needs_individual_updates:
            updates, losses = each_update(replies, strategy.item_tables)
            info = RoundInfo(round_, num_replied)
            return strategy.apply_updates(parameters, updates, losses, info)
        total = self.curator.release(update_sum(replies), shapes, round_)
        info = RoundInfo(
            round=round_,
            num_replied=0 if strategy.uses_only_the_sum else num_replied,
            noise_std=self.curator.noise_std,
            flip_rate=self.curator.flip_rate,
        )
        return strategy.apply_sum(parameters, total, info)

    def _report(
        self, replies: list[TrainReply], num_replied: int, failures: ClientFailures, attempt: int
    ) -> None:
        """Count the failures of a round, and pass its metrics to the callbacks."""
        self._state.failures += failures.kinds
        weight, loss = sum(reply.weight for reply in replies), float("nan")
        if weight and not self.curator.hides_losses:
            loss = sum(reply.loss for reply in replies) / weight
        metrics = {**self.strategy.round_metrics(), **self.curator.round_metrics()}
        if attempt:
            metrics["attempts"] = attempt + 1.0
        # The size of a noisy cohort depends on secret draws, by which noise is accounted for.
        num_clients = self.plan.clients_per_round if self.curator.noisy else num_replied
        trained = TrainedRound(self._state.round, loss, num_clients, failures.kinds, metrics)
        for callback in self.callbacks:
            callback.after_round(trained)

    def _failure(self, failures: ClientFailures, last: Mapping[int, Failure]) -> TrainingError:
        """Return the error that ends the run, from all failures of a round and the last ones."""
        if words := node_error(last):
            return TrainingError(f"a node failed: {words}")
        round_ = self._state.round
        fix = "lower min_completion or mend the clients"
        if failures.kinds[FailureKind.ANSWERED]:
            fix += (
                "; clients that are in a released sum of the round do not answer it again, so "
                "where that sum was lost or of no use, start a new run"
            )
        if failures.kinds[FailureKind.NOT_FINITE]:
            fix += ", or lower training.learning_rate where a loss is not finite"
        if self.plan.checkpoint_every is not None and round_ > self.plan.checkpoint_every:
            fix += "; the last checkpoint is kept: resume=<run folder> min_completion=... goes on"
        return TrainingError(
            f"round {round_}: fewer than {self.plan.min_completion:.0%} of the cohort replied "
            f"soundly, {self.plan.max_retries + 1} times over "
            f"({format_counts(failures.kinds)}): {fix}"
        )


def local_update_config(rule: LocalUpdateRule) -> dict[str, Any]:
    """Return the configuration node from which nodes build the rule; empty for plain training."""
    if rule == PlainUpdate():
        return {}
    return {"_target_": class_path(type(rule)), **asdict(rule)}
