"""The ordered list of steps between a client's data and the sum of the node's updates.

Every step has the same three hooks: on the client's data before training, on the updates of a
chunk of clients after training, and on the node's sum after the updates were added to it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from typing_extensions import override

from fedrec_flower.communication.compression.base import Compression
from fedrec_flower.communication.compression.error_feedback import compress_with_feedback
from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import Cost
from fedrec_flower.communication.train_result import TrainResult
from fedrec_flower.core.errors import require
from fedrec_flower.core.failures import Failure, FailureKind
from fedrec_flower.core.random import Seed, generator
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.privacy.mechanism import PrivacyMechanism
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.strategies.client_state import ClientState
from fedrec_flower.threats.base import Attack
from fedrec_flower.threats.faults import FaultModel, MalformedReply
from fedrec_flower.training.gradient_correction import CONTROL_VARIATE_PREFIX
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.trainer import Summed, Trained

_OTHER_LAYOUT = Failure(FailureKind.WRONG_SHAPE, "it does not have the layout of the others")
_REPEATED = Failure(FailureKind.REPEATED, "counted once")


@dataclass(frozen=True, slots=True)
class TrainContext:
    """One request to train.

    Attributes:
        round: the round.
        attempt: number of earlier attempts at the round.
        clip_norm: clipping bound of the round from the server; see `ServerMechanism.clip_norm`.
        global_params: the shared parameters that each client starts from.
    """

    round: int
    attempt: int
    clip_norm: float
    global_params: Versions


@dataclass(slots=True)
class UpdateBatch:
    """The updates of a chunk of clients between training and the sum; steps change it in place.

    Attributes:
        trained: the result of training; not modified.
        tables: names of the parameters with a row per item.
        updates: the updates as the previous step left them.
        num_bytes: size of all messages of the chunk if each client were alone on its node.
        failures: why a client's reply is missing or rejected, by client code.
    """

    trained: Trained
    tables: frozenset[str]
    updates: Updates
    num_bytes: int = 0
    failures: dict[int, Failure] = field(default_factory=dict)

    def remove(self, failures: Mapping[int, Failure]) -> None:
        """Remove the updates of clients and record why."""
        self.failures |= failures
        if not failures:
            return  # no copy: a round without failures has no extra cost
        remaining = ~np.isin(self.updates.clients, list(failures))
        self.updates = self.updates.select(np.flatnonzero(remaining), self.tables)

    def personal_rows(self, name: str, client: int) -> Float32Array:
        """Return the trained rows of a client's users, of a table with a row per user."""
        cohort = self.trained.cohort
        place = self._place(client)
        start, stop = cohort.user_offsets[place : place + 2].tolist()
        return self.trained.personal[name][start:stop]

    def shapes(self, client: int) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a client's update by name; a table has its touched rows."""
        num_rows = int(np.diff(self.trained.touched.offsets)[self._place(client)])
        return {
            name: (num_rows, *value.shape[1:]) if name in self.tables else value.shape[1:]
            for name, value in self.trained.updates.tensors.items()
        }

    def losses(self) -> Float64Array:
        """Return the mean training losses, float64 (num_clients,), in the order of `updates`."""
        clients = self.trained.cohort.clients
        order = np.argsort(clients)
        place = np.searchsorted(clients, self.updates.clients, sorter=order)
        return self.trained.loss[order[place]]

    def _place(self, client: int) -> int:
        return int(np.flatnonzero(self.trained.cohort.clients == client)[0])


class UpdateStep:
    """One step of the pipeline. A hook that is not overridden does not change its argument."""

    @property
    def is_identity(self) -> bool:
        """Whether the step changes nothing, so that the pipeline can leave it out."""
        return False

    @property
    def needs_single_updates(self) -> bool:
        """Whether the step reads data or updates of single clients.

        If no step does, the trainer may add updates to the sum at once: then only `weigh` and
        `message_bytes` are called.
        """
        return True

    def weigh(self, weights: Float64Array) -> Float64Array:
        """Return the weights of updates, float64 (num_clients,)."""
        return weights

    def message_bytes(self, num_rows: IndexArray) -> int:  # noqa: ARG002
        """Return the size of all messages if each client were alone on its node.

        Args:
            num_rows: int64 (num_clients,), number of item rows that each client touched.
        """
        return 0

    def on_data(self, data: ClientData, context: TrainContext) -> ClientData:  # noqa: ARG002
        """Return the data that the client trains on; `data` is not modified."""
        return data

    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        """Change the updates of a chunk of clients in place."""

    def on_sum(self, total: UpdateSum, clients: IndexArray, context: TrainContext) -> None:
        """Change the sum in place, after the updates of a chunk of clients were added.

        Args:
            total: sum over the node's clients so far.
            clients: int64 (num_clients,), the clients that were added.
            context: the request.
        """


@dataclass(frozen=True, slots=True)
class PrivacyStep(UpdateStep):
    """Disguises the data, clips the updates, and adds each client's noise to the sum.

    Attributes:
        mechanism: the privacy mechanism.
        num_items: size of the catalogue.
        noise_source: source of randomness.
    """

    mechanism: PrivacyMechanism
    num_items: int
    noise_source: NoiseSource

    @property
    @override
    def is_identity(self) -> bool:
        return self.mechanism.is_identity

    @override
    def on_data(self, data: ClientData, context: TrainContext) -> ClientData:
        return self.mechanism.training_data(data, self.num_items, self.noise_source)

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.updates = self.mechanism.apply(batch.updates, batch.tables, context.clip_norm)

    @override
    def on_sum(self, total: UpdateSum, clients: IndexArray, context: TrainContext) -> None:
        self.mechanism.add_noise(total, clients, context.round, self.noise_source, context.attempt)
        if self.mechanism.hides_rows:  # a dense message counts as touching every row
            total.row_weight[:] = total.weight


@dataclass(frozen=True, slots=True)
class WeightStep(UpdateStep):
    """Replaces the weights of the updates.

    Attributes:
        replaced: maps weights to weights, float64 (num_clients,).
    """

    replaced: Callable[[Float64Array], Float64Array]

    @property
    @override
    def needs_single_updates(self) -> bool:
        return False

    @override
    def weigh(self, weights: Float64Array) -> Float64Array:
        return self.replaced(weights)

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        weights = self.replaced(batch.updates.weights)
        if weights is not batch.updates.weights:
            batch.updates = replace(batch.updates, weights=weights)


@dataclass(frozen=True, slots=True)
class CompressionStep(UpdateStep):
    """Compresses each update, with error feedback if the compression uses it.

    Attributes:
        compression: the compression.
        residuals: compression errors that are added to the clients' next updates.
        seed: seed of stochastic rounding.
        cost: size of messages without compression.
    """

    compression: Compression
    residuals: ClientState
    seed: Seed
    cost: Cost

    @property
    @override
    def needs_single_updates(self) -> bool:
        return not self.compression.is_identity

    @override
    def message_bytes(self, num_rows: IndexArray) -> int:
        return int(self.cost.least(num_rows).sum())

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.updates, num_bytes = compress_with_feedback(
            self.compression,
            batch.updates,
            batch.tables,
            lambda client: generator(self.seed, "compression", context.round, client),
            self.residuals,
        )
        batch.num_bytes += int(num_bytes.sum())


@dataclass(frozen=True, slots=True)
class DenseMessageStep(UpdateStep):
    """Takes the place of compression if privacy makes messages dense; only counts their bytes.

    Attributes:
        cost: size of messages.
    """

    cost: Cost

    @property
    @override
    def needs_single_updates(self) -> bool:
        return False

    @override
    def message_bytes(self, num_rows: IndexArray) -> int:
        return self.cost.whole * len(num_rows)

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.num_bytes += self.cost.whole * len(batch.updates.clients)


@dataclass(frozen=True, slots=True)
class ClientFaultsStep(UpdateStep):
    """Simulated faults of clients: flipped labels in the data, replies after the deadline.

    Attributes:
        faults: the fault model.
    """

    faults: FaultModel

    @property
    @override
    def is_identity(self) -> bool:
        return self.faults.only_absences

    @override
    def on_data(self, data: ClientData, context: TrainContext) -> ClientData:
        return self.faults.tamper(data)

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        cohort = batch.trained.cohort
        late = self.faults.late(cohort.clients, cohort.num_examples, context.round, context.attempt)
        batch.remove(late)


@dataclass(frozen=True, slots=True)
class PoisoningStep(UpdateStep):
    """Replaces the data and the updates of malicious clients.

    Attributes:
        attack: the poisoning attack.
    """

    attack: Attack

    @property
    @override
    def is_identity(self) -> bool:
        return not len(self.attack.malicious_clients)

    @override
    def on_data(self, data: ClientData, context: TrainContext) -> ClientData:
        return self.attack.tamper(data)

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.updates = self.attack.poison(
            batch.updates,
            context.global_params.of,
            batch.personal_rows,
            batch.tables,
            context.round,
        )


@dataclass(frozen=True, slots=True)
class MessageFaultsStep(UpdateStep):
    """Simulated faults of messages: Byzantine scaling, corrupted, malformed or repeated updates.

    Attributes:
        faults: the fault model.
        limits: limits of a valid update.
    """

    faults: FaultModel
    limits: Limits

    @property
    @override
    def is_identity(self) -> bool:
        return self.faults.only_absences

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.updates, malformed = self.faults.corrupt(
            batch.updates, batch.tables, context.round, context.attempt
        )
        for reply in malformed:
            batch.failures[reply.client] = self._failure(reply, batch)

    def _failure(self, reply: MalformedReply, batch: UpdateBatch) -> Failure:
        if reply.duplicate:
            return _REPEATED
        shapes = batch.shapes(reply.client)
        violation = self.limits.violation(reply.tensors, reply.weight, shapes)
        return violation or _OTHER_LAYOUT


@dataclass(frozen=True, slots=True)
class LimitsStep(UpdateStep):
    """Removes invalid updates.

    Attributes:
        limits: limits of a valid update; a trainer that adds updates at once checks values itself.
    """

    limits: Limits

    @property
    @override
    def needs_single_updates(self) -> bool:
        return False

    @override
    def on_updates(self, batch: UpdateBatch, context: TrainContext) -> None:
        batch.remove(self.limits.violations(batch.updates, batch.tables))


@dataclass(frozen=True, slots=True)
class UpdatePipeline:
    """Applies the steps to the data and the updates of a node's clients, and sums the updates.

    Updates pass through the steps in list order, data in the opposite order: the first step is
    next to training, the last one next to the server. The default order (`node.open_node`) is

    1. `PrivacyStep`: pseudo items, clipping and noise protect the true values.
    2. `WeightStep`: secure aggregation gives every update the same weight.
    3. `CompressionStep`, or `DenseMessageStep` if privacy makes messages dense.
    4. `ClientFaultsStep`: flipped labels, late replies.
    5. `PoisoningStep`: malicious clients replace the protected and compressed update.
    6. `MessageFaultsStep`: scaled, corrupted, malformed and repeated updates.
    7. `LimitsStep`: invalid updates are rejected.

    Attributes:
        steps: the steps, in the order in which updates pass through them.
        mechanism: the privacy mechanism, for the guarantees that it declares.
        tables: names of the parameters with a row per item.
        names: names of the parameters that are sent.
        sends_individual_updates: send every client's update instead of their sum.
        limits: limits of a valid update.
    """

    steps: Sequence[UpdateStep]
    mechanism: PrivacyMechanism
    tables: frozenset[str]
    names: list[str]
    sends_individual_updates: bool
    limits: Limits

    @property
    def needs_single_updates(self) -> bool:
        """Whether single updates are sent, or a step reads data or updates of single clients."""
        return self.sends_individual_updates or any(s.needs_single_updates for s in self.steps)

    def empty_result(self, global_params: Versions, num_items: int) -> TrainResult:
        """Return a result without updates.

        Raises:
            ConfigError: if individual updates are sent although noise is added to their sum.
        """
        require(
            not (self.sends_individual_updates and self.mechanism.has_guarantee),
            "updates are asked for one by one, and privacy protects their sum: choose a strategy "
            "that averages, such as strategy=fedadam",
        )
        if self.sends_individual_updates:
            return TrainResult()
        extra_shapes = self.mechanism.extra_tensors
        shapes = {
            name: global_params.tensors[name.removeprefix(CONTROL_VARIATE_PREFIX)].shape[1:]
            for name in self.names
            if name not in extra_shapes
        }
        return TrainResult(UpdateSum.zeros(shapes | extra_shapes, num_items))

    def training_data(self, data: ClientData, context: TrainContext) -> ClientData:
        """Return the data that a client trains on."""
        for step in reversed(self.steps):
            data = step.on_data(data, context)
        return data

    def weigh(self, weights: Float64Array) -> Float64Array:
        """Return the weights of updates, float64 (num_clients,)."""
        for step in self.steps:
            weights = step.weigh(weights)
        return weights

    def count(self, summed: Summed, result: TrainResult) -> None:
        """Add bytes, losses and the number of clients whose updates are in the sum already."""
        valid = summed.is_valid
        if self.names:
            result.bytes_up += sum(
                step.message_bytes(summed.num_rows[valid]) for step in self.steps
            )
        result.replied += int(valid.sum())
        result.loss += float(summed.loss[valid] @ summed.weights[valid])

    def add(self, trained: Trained, result: TrainResult, context: TrainContext) -> None:
        """Pass the updates of a chunk of clients through the steps, and add them to the result."""
        batch = UpdateBatch(trained, self.tables, trained.updates)
        for step in self.steps:
            step.on_updates(batch, context)
        result.bytes_up += batch.num_bytes if self.names else 0
        result.failures |= batch.failures
        updates = batch.updates
        losses = batch.losses()
        result.replied += len(updates.clients)
        if not self.mechanism.has_guarantee:  # a loss has no noise and would reveal the data
            result.loss += float(losses @ updates.weights)
        if result.total is None:
            result.parts.append(updates)
            result.part_losses.append(losses)
            return
        result.total.add(updates, self.tables)
        for step in self.steps:
            step.on_sum(result.total, updates.clients, context)
