"""The round loop that all strategies share; a strategy only says how the server moves.

The messages are those of Flower's `Strategy`; the loop around them is our own, because Flower's
neither tries a round again nor begins in the middle. Cohorts hang on client codes and the seed,
never on node ids, which Flower draws at random.
"""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from time import perf_counter
from typing import Any, ClassVar, Literal

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from numpy.typing import NDArray

from fedrec_flower.communication.failures import ClientFailures, format_counts, node_error
from fedrec_flower.communication.limits import DIVERGED, DIVERGENCE_FIX
from fedrec_flower.communication.schema import TrainReply
from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.communication.validation import (
    ReplySchema,
    ValidReplies,
    each_update,
    update_sum,
)
from fedrec_flower.core.errors import TrainingError
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.federation.server import dispatch as wire
from fedrec_flower.federation.server.checkpointing import ResumableStrategy
from fedrec_flower.federation.server.dispatch import VERSIONS
from fedrec_flower.federation.server.plan import Observer, Outcome, Plan
from fedrec_flower.federation.server.sampling import sample_clients
from fedrec_flower.federation.server.secure_round import gather
from fedrec_flower.models.abilities import Regularized, ServerPostprocess
from fedrec_flower.models.closed_form import ClosedFormRecommender

_LOG = logging.getLogger(__name__)


class FederatedStrategy(ResumableStrategy):
    """Samples cohorts, averages updates, evaluates, and remembers the selected round.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: "all_clients" divides a table row's update by the weight of the whole
            cohort (textbook FedAvg), "touched_clients" by that of the clients that touched it.
    """

    shares: ClassVar[bool] = True  # whether anything travels between clients
    stacked: ClassVar[bool] = False  # whether the server must see every update by itself

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
    ) -> None:
        super().__init__(plan, observer)
        self.aggregation = aggregation
        self.replied = 0  # clients behind the last sum
        self._attempt, self._losses = 0, ClientFailures("round 0")  # of the round that is trained

    @abstractmethod
    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """Move the global parameters that are trained by the averaged update."""

    def move(self, parameters: Tensors, total: UpdateSum) -> Tensors:
        """The next global parameters, from the sum over the cohort: a step by its mean."""
        return self._stepped(parameters, self._mean(total))

    def move_by_each(
        self, parameters: Tensors, updates: Updates, losses: NDArray[np.float64]
    ) -> Tensors:
        """The next global parameters, where every update was sent by itself (`stacked`).

        Args:
            parameters: the global parameters.
            updates: the cohort's, ascending by client.
            losses: float64 (num_clients,), their mean training losses.
        """
        del losses
        return self._stepped(parameters, self.combine(updates))

    def combine(self, updates: Updates) -> Tensors:
        """The update that stands for the cohort's, full shapes (`stacked`)."""
        raise NotImplementedError

    @property
    def by_sum_alone(self) -> bool:
        """Whether the server moves by the sum of one cohort's updates, and by nothing else."""
        ways = ("_train", "configure_train", "aggregate_train", "_moved", "move")
        usual = all(getattr(type(self), way) is getattr(FederatedStrategy, way) for way in ways)
        return usual and not self.stacked

    @property
    def by_row(self) -> bool:
        """Whether the server must know the weight of the clients that touched each row."""
        return self.aggregation == "touched_clients"

    def begin(self, initial: Tensors) -> Tensors:
        """What the first round starts from, given freshly drawn parameters; several `VERSIONS`?"""
        return initial

    def local(self) -> dict[str, Any]:
        """What clients must know of the strategy, JSON-able; see `client.node.open_node`."""
        return {}

    def measured(self) -> Mapping[str, float]:
        """What else there is to tell of the round that has just been trained, by metric."""
        return {}

    def beside(self) -> Tensors:
        """What travels beside the parameters to those who train, and comes back up alike."""
        return {}

    def _stepped(self, parameters: Tensors, update: Tensors) -> Tensors:
        trained = {name: parameters[name] for name in parameters if name in update}
        return parameters | self.step(trained, update)

    def run(self, grid: Grid, initial: Tensors) -> Outcome:
        """Run all rounds, then evaluate the selected one on every client.

        Args:
            grid: carries messages to the nodes.
            initial: initial shared parameters; nothing if the strategy shares nothing.

        Raises:
            TrainingError: if nodes fail or stay silent once too often, or training diverges.
        """
        job = replace(
            self.plan.job,
            communicates=self.shares,
            individual_updates=self.stacked,
            local=self.local(),
        )
        place = "" if self.plan.place is None else self.plan.place.to_json()
        address = wire.Address(job.to_json(), place, self.plan.reply_timeout)
        num_clients, patience = self.plan.num_clients, self.plan.node_patience
        hosts = wire.Hosts.discover(grid, address, num_clients, patience)
        self.plan.secure.check(len(hosts.clients), self.plan.clients_per_round)
        if isinstance(self.plan.secure, SecAgg):
            counted = self.plan.secure.counted([*map(len, hosts.clients.values())])
            self.plan.curator.check_secure_aggregation(*counted, self.plan.secure.min_clients)
        self._post = wire.Post(address, hosts)
        if not self._round:  # no checkpoint was taken up
            self._parameters = self.begin(initial)
            self._evaluate(grid, 0)
        self.observer.began(self._round)
        while not self._is_over():
            self._round += 1
            self._train(grid, self._round)
            self._evaluate(grid, self._round)
            self._keep(grid)
        if self._round < self.plan.num_rounds and self.plan.curator.is_spent:
            _LOG.warning(
                "training ends after round %d of %d: rounds that were trained again after an "
                "interruption cost privacy.target_epsilon too, and another would exceed it",
                *(self._round, self.plan.num_rounds),
            )
        return Outcome(
            selected=self._evaluate_selected(grid),
            best_test=self._selection.best_test,
            rounds_participated=self._participated,
            seconds=self._seconds,
            bytes_down=wire.num_bytes(wire.to_record(initial | self.beside())),
            bytes_up=round(self._bytes_up / max(1, int(self._participated.sum()))),
            lost=dict(self._lost),
            stopped_at=self._round if self._round < self.plan.num_rounds else None,
            privacy=self.plan.curator.facts(),
        )

    def summary(self) -> None:
        """Flower asks strategies to log themselves; the run folder holds the configuration."""

    # --- training ---------------------------------------------------------------------------

    def _train(self, grid: Grid, round_: int) -> None:
        """One round; tried again with a fresh cohort where too few clients reply."""
        self._started, nothing = perf_counter(), ConfigRecord()
        self._losses = self._no_losses(round_)
        # Where any round counts, none is tried again: privacy accounts for one cohort a round.
        for attempt in range(1 + self.plan.max_retries * (self.plan.min_completion > 0)):
            self._attempt = attempt
            asked = list(self.configure_train(round_, ArrayRecord(), nothing, grid))
            expected, least = self._expected(), self._least
            sound = gather(self.plan.secure, grid, asked, self._post, expected, least)
            if self._use(round_, sound)[0] is not None:
                self._seconds["train"] += perf_counter() - self._started
                return
        raise self._failure(round_, sound.failures)

    def _failure(self, round_: int, lost: Mapping[int, Failure]) -> TrainingError:
        """Why the run ends, given what the last attempt at a round has lost."""
        if words := node_error(lost):
            return TrainingError(f"a node failed: {words}")
        mend = "lower min_completion or mend the clients"
        if self._losses.kinds[FailureKind.ANSWERED]:
            mend += (
                "; clients that are in a released sum of the round do not answer it again, so "
                "where that sum was lost or of no use, start a new run"
            )
        if self._losses.kinds[FailureKind.NOT_FINITE]:
            mend += ", or lower training.learning_rate where a loss is not finite"
        if self.plan.checkpoint_every is not None and round_ > self.plan.checkpoint_every:
            mend += "; the last checkpoint is kept: resume=<run folder> min_completion=... goes on"
        return TrainingError(
            f"round {round_}: fewer than {self.plan.min_completion:.0%} of the cohort replied "
            f"soundly, {self.plan.max_retries + 1} times over "
            f"({format_counts(self._losses.kinds)}): {mend}"
        )

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Sample the cohort and address each node that hosts a part of it."""
        del arrays, config, grid
        size = self.plan.clients_per_round
        sampled = sample_clients(self.plan, "cohort", server_round, size, self._attempt)
        cohort, bound = self.plan.curator.cohort(sampled, server_round), self.plan.curator.clip_norm
        self._participated[cohort] += 1
        about = {"round": server_round, "attempt": self._attempt, "clip_norm": bound}
        # Where there is nothing beside, these very parameters were serialized to be evaluated.
        beside = self.beside()
        given = self._parameters | beside if beside else self._parameters
        # Whether masks let a noisy sum out must not depend on the nodes that the coins chose.
        everyone = self.plan.curator.noisy and isinstance(self.plan.secure, SecAgg)
        yield from self._post.requests(
            "train", cohort, given, about, server_round, everyone=everyone
        )

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the updates and move the global parameters; None if too few replied."""
        self._attempt, self._losses = 0, self._no_losses(server_round)
        sound = ValidReplies.collect(replies, self._post.asked, self._expected())
        return self._use(server_round, sound)

    def _use(
        self, server_round: int, sound: ValidReplies[TrainReply]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        self.replied = sum(reply.replied for reply in sound.replies)
        if sound.failures and not self.replied and {*sound.failures.values()} == {DIVERGED}:
            # Another cohort would fare no better.
            raise TrainingError(
                f"round {server_round}: no client's loss is finite; {DIVERGENCE_FIX}"
            )
        self._losses.add(sound.failures)
        self._bytes_up += sum(reply.bytes_up for reply in sound.replies)
        if self._is_too_few(sound):
            return None, None
        self._losses.warn()
        weight, loss = sum(reply.weight for reply in sound.replies), float("nan")
        if weight or self.plan.curator.noisy:  # a cohort without training data changes nothing
            self._parameters = self._moved(sound.replies)
            if isinstance(self.plan.model, ServerPostprocess):
                rng = generator(self.plan.seed, "settle", server_round)
                self._parameters = self.plan.model.after_server_step(self._parameters, rng)
            self._require_finite(server_round)
        if weight and not self.plan.curator.hides_losses:
            loss = sum(reply.loss for reply in sound.replies) / weight
        self._lost += self._losses.kinds
        tried = {"attempts": self._attempt + 1.0} if self._attempt else {}
        more = {**self.measured(), **self.plan.curator.round_metrics(), **tried}
        # The size of a cohort tells of the coins, by which noise is accounted for.
        noisy, expected = self.plan.curator.noisy, self.plan.clients_per_round
        num_clients = expected if noisy else self.replied
        self.observer.trained(server_round, loss, num_clients, self._losses.kinds, more)
        return ArrayRecord(), MetricRecord({"loss": loss})

    def _no_losses(self, round_: int) -> ClientFailures:
        return ClientFailures(f"round {round_}", named=not self.plan.curator.noisy)

    def _is_too_few(self, sound: ValidReplies[TrainReply]) -> bool:
        if not sound.replies and node_error(sound.failures):
            return True  # failing is not being absent, of which any number may be allowed
        return self.replied < self._least

    @property
    def _least(self) -> float:
        """How many clients must reply soundly."""
        # A hair below, for .56 of 50 is a hair above 28 in floating point.
        return self.plan.min_completion * self.plan.clients_per_round - 1e-9

    def _expected(self) -> ReplySchema:
        plan, several = self.plan, VERSIONS in self._parameters
        frozen = {*plan.model.frozen, VERSIONS}
        shapes = {
            name: value.shape[1:] if several else value.shape
            for name, value in self._parameters.items()
            if name not in frozen
        }
        shapes |= {name: value.shape for name, value in self.beside().items()}
        shapes |= plan.curator.extra_tensors
        solved = isinstance(plan.model, ClosedFormRecommender)
        hidden = isinstance(plan.secure, SecAgg) and not self.by_row
        return ReplySchema(
            self._statistic_shapes if solved else shapes,
            plan.item_tables,
            plan.num_items,
            plan.limits,
            self.stacked,
            statistics=solved,
            row_weights=not solved and not hidden,
            losses_below_zero=isinstance(plan.model, Regularized) and plan.model.may_be_negative,
        )

    @cached_property
    def _statistic_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of what clients tell of an exact model, which depend on no user."""
        model = self.plan.model
        if not isinstance(model, ClosedFormRecommender) or not self.shares:
            return {}
        return model.statistic_shapes(self._parameters)

    def _moved(self, replies: list[TrainReply]) -> Tensors:
        if self.stacked:
            return self.move_by_each(self._parameters, *each_update(replies, self.plan.item_tables))
        total, shapes = update_sum(replies), self._expected().shapes
        return self.move(self._parameters, self.plan.curator.release(total, shapes, self._round))

    def _mean(self, total: UpdateSum) -> Tensors:
        if self.aggregation == "touched_clients":
            return mean_over_touching_clients(total, self.plan.item_tables)
        return mean_over_all_clients(total)

    def _require_finite(self, round_: int) -> None:
        for name, value in self._parameters.items():
            if not np.isfinite(value).all():
                advice = "lower the learning rates or strategy.server_learning_rate"
                raise TrainingError(f"round {round_}: {name} is no longer finite; {advice}")
