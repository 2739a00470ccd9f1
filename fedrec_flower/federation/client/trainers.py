"""Trainers of a node's clients: by gradients, or by statistics that the server solves."""

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.limits import DIVERGED
from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Seed, generator
from fedrec_flower.core.types import IndexArray, Sums, Tensors
from fedrec_flower.core.updates import ROW_WEIGHT, UpdateSum, mean_over_all_clients
from fedrec_flower.data.prepared import ClientData, Columns, Prepared, starts
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.federation.client.state_store import ClientStore
from fedrec_flower.federation.client.update_pipeline import TrainContext, UpdatePipeline
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.closed_form import ClosedFormRecommender
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.strategies.client_updates import BoundUpdateRule, LocalUpdateRule
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.faults import FaultModel
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import LocalTrainer, SummingTrainer, Trained

_LOG = logging.getLogger(__name__)

_CELLS_PER_BATCH = 20_000_000  # answers of users about items: 80 MB


class Trainer(Protocol):
    """Trains the clients of a node."""

    @property
    def names(self) -> list[str]:
        """Names of the sent arrays, in message order; may be empty."""
        ...

    @property
    def tables(self) -> Collection[str]:
        """Those of `names` with a row per item."""
        ...

    def train(
        self,
        clients: Sequence[int],
        global_params: Versions,
        round_: int,
        attempt: int = 0,
        extra_tensors: Sequence[NDArray[Any]] = (),
        clip_norm: float = inf,
    ) -> TrainResult:
        """Train clients from the global parameters.

        Args:
            clients: their codes.
            global_params: the shared parameters; not modified.
            round_: the round.
            attempt: number of earlier attempts at the round.
            extra_tensors: further tensors of the strategy, in message order.
            clip_norm: clipping bound from the server; see `ServerMechanism.clip_norm`.
        """
        ...

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """Return new shared parameters as if the clients of the sum were the whole federation."""
        ...

    def local_solutions(self, users: UserBatch) -> Tensors:
        """Return parameters of clients that are neither sent nor stored, but computed on use.

        Returns:
            By name (num_clients, ...).
        """
        ...


@dataclass(frozen=True, slots=True)
class GradientTrainer:
    """Clients train by gradient steps; updates are weighted by the number of interactions.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender.
        local_trainer: trains clients.
        store: personal state of the clients hosted here.
        pipeline: the steps between a client's data and the sum of the updates.
        faults: the fault model, for clients that do not take part in a round.
        trained: names of the shared parameters that are trained.
        rule: the strategy's local update rule.
        rule_state: state that the rule keeps per client.
    """

    data: Prepared
    model: Recommender
    local_trainer: LocalTrainer
    store: ClientStore
    pipeline: UpdatePipeline
    faults: FaultModel
    trained: list[str]
    rule: LocalUpdateRule
    rule_state: ClientState

    @property
    def names(self) -> list[str]:
        """Names of the trained parameters and of the extra tensors that are sent with them."""
        return self.pipeline.names

    @property
    def tables(self) -> Collection[str]:
        """Those of `names` with a row per item."""
        return self.pipeline.tables

    def train(
        self,
        clients: Sequence[int],
        global_params: Versions,
        round_: int,
        attempt: int = 0,
        extra_tensors: Sequence[NDArray[Any]] = (),
        clip_norm: float = inf,
    ) -> TrainResult:
        """Train clients and pass their updates through the pipeline; see `Trainer.train`."""
        control_names = self.trained if self.rule.uses_control_variates else []
        controls = dict(zip(control_names, extra_tensors, strict=True))
        correction = BoundUpdateRule(self.rule, controls, self.rule_state)
        context = TrainContext(round_, attempt, clip_norm, global_params)
        absent = self.faults.absent(clients, round_, attempt)
        present = [client for client in clients if client not in absent]
        result = self.pipeline.empty_result(global_params, self.data.num_items)
        result.failures |= absent
        if summing := self._summing_trainer():
            present = self._add_updates(summing, present, context, result)
        members = [
            self.pipeline.training_data(self.data.client(client), context) for client in present
        ]
        for trained in self._train_chunks(members, context, correction):
            cohort, touched = trained.cohort, trained.touched
            self.store.scatter(cohort, touched, trained.personal)
            self.store.store_adapted(cohort, touched, global_params, trained.updates.tensors)
            # A client with a loss that is not finite neither sends nor stores its update.
            finite, diverged = trained.split_diverged(self.tables)
            if (
                diverged and self.pipeline.mechanism.has_guarantee
            ):  # a failure would reveal the data
                _LOG.warning(
                    "round %d: the loss of %d clients is not finite; they send a zero update, "
                    "because privacy hides which clients diverged: lower training.learning_rate "
                    "or training.dense_learning_rate",
                    round_,
                    len(diverged),
                )
                finite, diverged = trained, []
            self.pipeline.add(correction.result_to_send(finite), result, context)
            result.failures |= dict.fromkeys(diverged, DIVERGED)
        return result

    def _summing_trainer(self) -> SummingTrainer | None:
        """Return the trainer if it may add updates at once, without single updates."""
        trainer = self.local_trainer
        if (
            self.rule.needs_single_updates
            or self.pipeline.needs_single_updates
            or self.store.keeps_adapted
            or not isinstance(trainer, SummingTrainer)
            or not trainer.can_sum(self.trained)
        ):
            return None
        return trainer

    def _add_updates(
        self,
        trainer: SummingTrainer,
        clients: Sequence[int],
        context: TrainContext,
        result: TrainResult,
    ) -> list[int]:
        """Train clients and add their updates to the result at once.

        Returns:
            The clients whose updates are not valid, and therefore not added.
        """
        limits, rejected = self.pipeline.limits, list[int]()
        assert result.total is not None  # noqa: S101  # individual updates are not added
        for codes in trainer.cohorts(self.data, np.array(clients, np.int64)):
            cohort = Cohort.read(self.data, codes, spare_held_out=trainer.spares_held_out)
            num_examples = cohort.num_examples.astype(np.float64)
            summed = trainer.add_updates(
                cohort,
                self.pipeline.weigh(self.rule.weigh(num_examples)),
                context.global_params,
                self.store,
                context.round,
                self.rule.proximal,
                limits.value,
                result.total,
            )
            self.store.scatter_valid(cohort, summed.personal, summed.is_valid)
            self.pipeline.count(summed, result)
            rejected += codes[~summed.is_valid].tolist()
        return rejected

    def _train_chunks(
        self, members: Sequence[ClientData], context: TrainContext, correction: BoundUpdateRule
    ) -> Iterator[Trained]:
        """Train clients, and yield the results of one chunk after another.

        Under local privacy, a client whose training fails sends a zero update, like a client
        without data: an error would reveal its data to the server.
        """
        if not protects_from_server(self.pipeline.mechanism):
            yield from self._train(members, context, correction)
            return
        try:
            chunks = [*self.local_trainer.chunks(members)]
        except ConfigError:  # a client does not fit into the memory
            chunks = [[data] for data in members]
        for chunk in chunks:
            try:
                results = [*self._train(chunk, context, correction)]
            except Exception:  # noqa: BLE001  # no error may leave the node
                _LOG.exception("round %d: training of a client failed", context.round)
                results = [self._train_or_skip(data, context, correction) for data in chunk]
            yield from results

    def _train(
        self, members: Sequence[ClientData], context: TrainContext, correction: BoundUpdateRule
    ) -> Iterator[Trained]:
        return self.local_trainer.train(
            members, context.global_params, self.store, context.round, correction
        )

    def _train_or_skip(
        self, data: ClientData, context: TrainContext, correction: BoundUpdateRule
    ) -> Trained:
        try:
            (trained,) = self._train([data], context, correction)
        except Exception:  # noqa: BLE001  # as above
            _LOG.exception(
                "round %d: training of client %d failed; it sends a zero update, because privacy "
                "hides the failure",
                context.round,
                data.client,
            )
            (trained,) = self._train([data.without_interactions()], context, correction)
        return trained

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """Add the mean update to the shared parameters."""
        mean = mean_over_all_clients(total)
        return {name: shared[name] + change for name, change in mean.items() if name in shared}

    def local_solutions(self, users: UserBatch) -> Tensors:  # noqa: ARG002
        """Return no parameters: all are sent or stored."""
        return {}


@dataclass(frozen=True, slots=True)
class ExactTrainer:
    """Clients of a closed-form model send sufficient statistics; they have no training loss.

    Attributes:
        data: reader of the prepared folder.
        model: the recommender.
        communicates: whether statistics are sent. If not, each client solves its own statistics
            whenever it is evaluated: stored item-by-item matrices of all clients would fill a disk.
        num_rounds: number of iterations of a client's own solution.
        seed: seed of initial values; see `core.random`.
        attack: malicious clients, which replace their data.
        faults: the fault model, for clients that do not take part in a round.
        privacy: the privacy mechanism, which bounds or randomises the statistics.
        noise_source: source of randomness for privacy.
    """

    data: Prepared
    model: ClosedFormRecommender
    communicates: bool
    num_rounds: int
    seed: Seed
    attack: Attack
    faults: FaultModel
    privacy: PrivacyMechanism
    noise_source: NoiseSource

    @property
    def names(self) -> list[str]:
        """Names of the statistics."""
        return list(self.model.statistic_names) if self.communicates else []

    @property
    def tables(self) -> Collection[str]:
        """No tables: statistics are sent whole."""
        return ()

    def train(
        self,
        clients: Sequence[int],
        global_params: Versions,
        round_: int,
        attempt: int = 0,
        extra_tensors: Sequence[NDArray[Any]] = (),  # noqa: ARG002
        clip_norm: float = inf,  # noqa: ARG002
    ) -> TrainResult:
        """Sum the clients' statistics; the loss is NaN. See `Trainer.train`."""
        absent = self.faults.absent(clients, round_, attempt)
        present = [client for client in clients if client not in absent]
        sums = Sums()
        weight = 0.0
        for history, user_offsets in self._histories(present):
            user_weights = self.privacy.user_weights(self.model, history, user_offsets)
            statistics = Sums()
            if self.names:
                statistics = self.model.statistics(history, global_params.of(0), user_weights)
            if sums:
                sums = {name: value + sums[name] for name, value in statistics.items()}
            else:
                sums = statistics
            weight += self.privacy.statistics_weight(history, len(user_offsets) - 1)
        total = UpdateSum(sums, weight, np.zeros(0))
        return TrainResult(
            total,
            loss=float("nan"),
            bytes_up=len(present) * _num_bytes(total) if sums else 0,
            replied=len(present),
            failures=absent,
        )

    def _histories(self, clients: Sequence[int]) -> Iterator[tuple[Columns, IndexArray]]:
        """Yield the histories of clients, and the index of each client's first user.

        All at once, unless privacy makes histories as long as the catalogue.
        """
        claims = list(self._claims(clients))
        if not (self.privacy.has_dense_histories and claims):
            all_sizes = np.diff(self.data.client_offsets)
            sizes = [np.zeros(0, np.int64)]
            sizes += [all_sizes[data.client : data.client + data.num_clients] for data in claims]
            histories = [self._disguised(data).train for data in claims]
            yield _joined(histories), starts(np.concatenate(sizes))
            return
        size = max(_CELLS_PER_BATCH // self.data.num_items, 1)
        for data in claims:
            for start in range(0, data.num_users, size):
                part = self._disguised(data.users(start, start + size))
                yield part.train, starts([part.num_users])

    def _claims(self, clients: Sequence[int]) -> Iterator[ClientData]:
        """Yield the data of honest neighbours as one client, and of each malicious client."""
        malicious = np.intersect1d(clients, self.attack.malicious_clients)
        for run in neighbours(np.setdiff1d(clients, malicious)):
            yield self.data.client(run.start, len(run))
        for client in malicious.tolist():
            yield self.attack.tamper(self.data.client(client))

    def _disguised(self, data: ClientData) -> ClientData:
        return self.privacy.training_data(data, self.data.num_items, self.noise_source)

    def finish(self, total: UpdateSum, shared: Tensors) -> Tensors:
        """Solve the summed statistics."""
        return self.model.solve(total.tensors, shared)

    def local_solutions(self, users: UserBatch) -> Tensors:
        """Return the solutions of the clients' own statistics, if statistics are not sent."""
        if self.communicates:
            return {}
        solutions = []
        for place, client in enumerate(users.clients.tolist()):
            rng = generator(self.seed, "initial-personal", 0, client)
            initial = self.model.initial(self.model.shared_names(), rng)
            history = users.slice(place, place + 1).train
            solutions.append(self.model.solve_alone(history, initial, self.num_rounds))
        return {name: np.stack([each[name] for each in solutions]) for name in solutions[0]}


def protects_from_server(privacy: PrivacyMechanism) -> bool:
    """Return whether clients protect their data from the server, so it must see no error."""
    return privacy.has_guarantee and not privacy.trusts_server


def neighbours(clients: Sequence[int] | IndexArray) -> list[range]:
    """Return the runs of consecutive client codes, ascending; a run can be read as one client."""
    ascending = np.sort(np.asarray(clients, np.int64))
    runs = np.split(ascending, np.flatnonzero(np.diff(ascending) > 1) + 1)
    return [range(int(run[0]), int(run[-1]) + 1) for run in runs if len(run)]


def _num_bytes(total: UpdateSum) -> int:
    """Return the size of one client's message."""
    # Statistics are sent as float32. Broadcast zeros have their shapes without the memory.
    zeros = {
        name: np.broadcast_to(np.float32(0), array.shape) for name, array in total.tensors.items()
    }
    return Cost.of({**zeros, ROW_WEIGHT: total.row_weight}, []).whole


def _joined(histories: Sequence[Columns]) -> Columns:
    """Concatenate the histories of several groups of users."""
    if not histories:
        return Columns(starts([]), np.zeros(0, np.int32), None)
    counts = np.concatenate([np.diff(history.offsets) for history in histories])
    return Columns(starts(counts), np.concatenate([history.item for history in histories]), None)
