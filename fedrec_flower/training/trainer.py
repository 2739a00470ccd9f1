"""The base of all trainers: split the cohort into chunks, prepare them, collect the updates.

Every client trains a *sub-model*: its own users' rows and only those item rows that its samples
and histories touch. So a step costs as much as the client's data, and weight decay changes no
other row.

Source: McMahan et al. 2017, Algorithm 1, ClientUpdate.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import Seed
from fedrec_flower.core.types import IndexArray, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import ClientData, Prepared
from fedrec_flower.data.splits.base import Negatives
from fedrec_flower.models.abilities import AlternatingUpdates, RoundAware, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.training.batches import ActiveRows, CohortBatch
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.gradient_correction import (
    CorrectionTerms,
    GradientCorrection,
    NoCorrection,
    num_steps,
)
from fedrec_flower.training.history_batches import HistoryBatches
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.negative_sampling import Sampler, Samples, Task

_EMPTY = np.zeros(0, np.int64)
_COLUMNS = 8  # numbers of eight bytes for each interaction of a cohort: codes, flags, copies
_NO_CORRECTION = NoCorrection()


class PersonalParameters(Protocol):
    """The store of the clients' personal parameters."""

    def gather(self, cohort: Cohort, touched: ActiveRows) -> Tensors:
        """The clients' personal parameters, laid out as `CohortBatch.values`."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of training a chunk of clients.

    Attributes:
        cohort: the clients.
        touched: the item rows they touched.
        updates: their updates. A client whose loss is not finite has an update of zeros.
        personal: new personal parameters, laid out as `CohortBatch.values`; they stay on the node
            and are unchanged for a client whose loss is not finite.
        loss: float64 (num_clients,), mean training loss over each client's samples.
        rates: learning rate of each parameter in `updates`.
        num_steps: by the same names int64 (num_clients,), number of steps that updated it.
    """

    cohort: Cohort
    touched: ActiveRows
    updates: Updates
    personal: Tensors
    loss: NDArray[np.float64]
    rates: Mapping[str, float]
    num_steps: Mapping[str, IndexArray]

    def split_diverged(self, tables: Collection[str]) -> tuple[Self, list[int]]:
        """The updates of the clients whose loss is finite, and the codes of the other clients.

        Args:
            tables: names of the parameters with a row per item.
        """
        finite = np.isfinite(self.loss)
        if finite.all():
            return self, []
        places = np.flatnonzero(finite)
        finite_steps = {name: steps[places] for name, steps in self.num_steps.items()}
        finite_updates = self.updates.select(places, tables)
        part = replace(self, updates=finite_updates, num_steps=finite_steps)
        return part, self.updates.clients[~finite].tolist()


class LocalTrainer(ABC):
    """Trains the clients of a node; a client's result does not depend on the other clients.

    Args:
        model: the recommender.
        training: how a client trains.
        task: "ranking" samples negatives, "rating" predicts raw ratings.
        negatives: the pool of negatives; "legacy" leaks held-out items.
        num_items: size of the catalogue.
        seed: the seed or secret of all draws; see `seeding`.
        maml_step: length of an inner step, in units of the learning rates, before every step: a
            plain SGD step on the first half of the batch. The gradient of the other half is
            computed there and applied at the values before the inner step. None: no inner step,
            whole batches. Source: Fallah et al. 2020, Algorithm 1, first-order, with one batch
            instead of its two.
    """

    def __init__(
        self,
        model: Recommender,
        training: LocalTraining,
        task: Task,
        negatives: Negatives,
        num_items: int,
        seed: Seed,
        maml_step: float | None = None,
    ) -> None:
        self.model = model
        self.training = training
        self.negatives = negatives
        self.maml_step = maml_step
        # An inner step takes one half of a batch, so that the order matters in every batch.
        step_size = training.batch_size if maml_step is None else 1
        self.sampler = Sampler(
            task, training.width, training.num_negatives, num_items, seed, step_size
        )

    @property
    def spares_held_out(self) -> bool:
        """Whether held-out items are never drawn as negatives; see `Cohort.gather`."""
        return self.negatives == "legacy"

    @abstractmethod
    def fit(self, chunk: CohortBatch) -> NDArray[np.float64]:
        """Train a chunk: change `chunk.values` in place, return mean losses (num_clients,).

        The clients of a chunk are sorted by size, largest first.
        """

    def update_groups(self, epoch: int) -> list[frozenset[str]]:
        """The parameters that each step on a batch updates; see `AlternatingUpdates`."""
        model = self.model
        if isinstance(model, AlternatingUpdates):
            groups = model.update_groups(epoch)
        else:
            groups = [frozenset(name for name, _ in model.named_parameters())]
        updated = (group - model.frozen for group in groups)
        return [phase for phase in updated if phase]

    @abstractmethod
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Split the clients into chunks that are trained at once."""

    def train(
        self,
        clients: Sequence[ClientData],
        versions: Versions,
        personal: PersonalParameters,
        round_: int,
        correction: GradientCorrection = _NO_CORRECTION,
    ) -> Iterator[Trained]:
        """Train each client from its version of the shared parameters.

        Args:
            clients: the cohort hosted on this node.
            versions: the versions of the shared parameters; not changed.
            personal: the store of the clients' personal parameters.
            round_: the round, part of the address of every random draw.
            correction: the terms that a strategy adds to the gradients.

        """
        if isinstance(self.model, RoundAware):
            self.model.on_round_start(round_)
        for chunk in self.chunks(clients):
            yield self._train_chunk(chunk, versions, personal, round_, correction)

    def _train_chunk(
        self,
        clients: Sequence[ClientData],
        versions: Versions,
        personal: PersonalParameters,
        round_: int,
        correction: GradientCorrection,
    ) -> Trained:
        cohort = Cohort.gather(clients, spare_held_out=self.spares_held_out)
        epochs, touched, reading = self._draw(cohort, round_)
        new_personal = personal.gather(cohort, touched)
        shared = {name: self._copies(name, versions, cohort, touched) for name in versions.tensors}
        side_information = self._side_information(cohort, touched, round_)
        weights = cohort.num_examples.astype(np.float64)
        trained = {n: value for n, value in shared.items() if n not in self.model.frozen}
        layout = Updates(cohort.clients, weights, touched.offsets, touched.rows, {})
        rates = {name: self._rate(name) for name in trained}
        terms = CorrectionTerms.of(correction, layout, trained, rates)
        values = shared | new_personal | side_information
        chunk = CohortBatch(self.model, cohort, epochs, touched, reading, values, terms)
        loss = self.fit(chunk)
        diverged = np.flatnonzero(~np.isfinite(loss))
        if len(diverged):
            _reset(chunk, new_personal, personal.gather(cohort, touched), diverged)
        for name, value in trained.items():
            if self._is_table(name):
                versions.subtract_rows(value, name, cohort, touched)
            else:
                np.subtract(value, versions.whole(name, cohort.clients), out=value)
        _reset(chunk, trained, dict.fromkeys(trained), diverged)
        updates = Updates(cohort.clients, weights, *self._sent_rows(trained, touched), trained)
        phases = [self.update_groups(epoch) for epoch in range(len(epochs))]
        step_counts = num_steps(self.training.batch_size, epochs, phases, trained)
        return Trained(cohort, touched, updates, new_personal, loss, rates, step_counts)

    def _draw(
        self, cohort: Cohort, round_: int
    ) -> tuple[list[Samples], ActiveRows, HistoryBatches | None]:
        """Samples and histories of each local epoch, and the item rows they touch."""
        model = self.model
        sampler = self.sampler
        epoch_range = range(self.training.local_epochs)
        if not isinstance(model, HistoryRecommender):
            epochs = [sampler.draw(cohort, round_, epoch) for epoch in epoch_range]
            return epochs, ActiveRows.find(epochs, _EMPTY, _EMPTY, sampler.num_items), None
        entries = model.entries(cohort.history, sampler.num_items)
        in_order = entries.in_order
        epochs = [
            sampler.draw(cohort, round_, epoch, in_order=in_order, by_user=True)
            for epoch in epoch_range
        ]
        sizes = np.diff(entries.offsets[cohort.user_offsets])
        client_of_entry = np.repeat(np.arange(len(cohort)), sizes)
        touched = ActiveRows.find(epochs, client_of_entry, entries.item, sampler.num_items)
        row = touched.place_of(client_of_entry, entries.item)
        share = 1 - model.input_dropout
        stays = [sampler.dropout_mask(cohort, sizes, round_, epoch, share) for epoch in epoch_range]
        noise = [sampler.noise(cohort, round_, epoch, model.noise_dim) for epoch in epoch_range]
        return epochs, touched, HistoryBatches.lay_out(entries, cohort, row, stays, noise)

    def _side_information(self, cohort: Cohort, touched: ActiveRows, round_: int) -> Tensors:
        """The model's side information on users and touched items; see `SideInformation`."""
        model = self.model
        if not isinstance(model, SideInformation):
            return {}
        sizes = np.diff(cohort.user_offsets)
        share = 1 - model.history_dropout
        stays = self.sampler.dropout_mask(cohort, sizes, round_, epoch=0, share=share)
        return model.side_information(cohort.attributes, cohort.history.mask(stays), touched.rows)

    def _sent_rows(self, values: Tensors, touched: ActiveRows) -> tuple[IndexArray, IndexArray]:
        """Offsets and rows of the updates; no rows if there is no table.

        Then a message does not reveal which items a client touched.
        """
        if any(self._is_table(name) for name in values):
            return touched.offsets, touched.rows
        return np.zeros_like(touched.offsets), _EMPTY

    def _rate(self, name: str) -> float:
        tables = self.model.user_rows | self.model.item_rows
        if name in tables:
            return self.training.learning_rate
        return self.training.dense_learning_rate

    def _is_table(self, name: str) -> bool:
        return name in self.model.item_rows

    def _copies(
        self, name: str, versions: Versions, cohort: Cohort, touched: ActiveRows
    ) -> NDArray[np.float32]:
        """The touched rows of a table, or one copy per client of another parameter."""
        if self._is_table(name):
            return versions.rows(name, cohort, touched)
        return versions.whole(name, cohort.clients)


@dataclass(frozen=True, slots=True)
class Summed:
    """The result of training clients whose updates were added to a sum at once.

    Attributes:
        cohort: the clients.
        weights: float64 (num_clients,), their weights in the sum.
        is_valid: bool (num_clients,), whether the client's update is in the sum. An update with a
            value that is not finite or beyond the limit is not, nor one with a loss that is not
            finite.
        num_rows: int64 (num_clients,), number of item rows that the client touched.
        loss: float64 (num_clients,), mean training loss over each client's samples.
        personal: new personal parameters of the cohort's users; without meaning for a client whose
            update is not in the sum.
    """

    cohort: Cohort
    weights: NDArray[np.float64]
    is_valid: NDArray[np.bool_]
    num_rows: IndexArray
    loss: NDArray[np.float64]
    personal: Tensors


class SummingTrainer(LocalTrainer):
    """A trainer that can add the updates of clients to a sum without storing each of them."""

    def cohorts(self, data: Prepared, clients: IndexArray) -> Iterator[IndexArray]:
        """Split client codes so that the data and draws of each part fit the memory budget."""
        if not len(clients):
            return
        interactions = data.num_examples[clients]
        draws = self.sampler.per_interaction * self.sampler.width * self.training.local_epochs
        num_bytes = np.cumsum(interactions * 8 * (_COLUMNS + draws))
        part = num_bytes // (self.training.memory_budget_mb * 1_000_000)
        yield from np.split(clients, np.flatnonzero(np.diff(part)) + 1)

    @abstractmethod
    def can_sum(self, shared: Collection[str]) -> bool:
        """Whether updates of these shared parameters can be added at once."""

    @abstractmethod
    def add_updates(
        self,
        cohort: Cohort,
        weights: NDArray[np.float64],
        versions: Versions,
        personal: PersonalParameters,
        round_: int,
        proximal: float,
        max_value: float,
        total: UpdateSum,
    ) -> Summed:
        """Train clients and add their weighted updates to a sum.

        The sum is that of the updates of `train`, up to rounding.

        Args:
            cohort: the clients.
            weights: float64 (num_clients,), their weights in the sum.
            versions: the versions of the shared parameters; not changed.
            personal: the store of the clients' personal parameters; not changed.
            round_: the round, part of the address of every random draw.
            proximal: see `GradientCorrection`.
            max_value: largest magnitude of a value of a valid update.
            total: the sum, changed in place.
        """


def _reset(
    chunk: CohortBatch,
    values: Tensors,
    before: Mapping[str, NDArray[np.float32] | None],
    places: IndexArray,
) -> None:
    """Reset the values of some clients, in place.

    Args:
        chunk: the clients.
        values: by name, laid out as `CohortBatch.values`.
        before: the values to restore, likewise; None: zeros.
        places: int64 (n,), positions of the clients in the chunk.
    """
    for name, earlier in before.items():
        for place in places:
            part = place
            if name in chunk.tables:
                start, stop = chunk.row_offsets(name)[place : place + 2]
                part = slice(start, stop)
            values[name][part] = 0 if earlier is None else earlier[part]
