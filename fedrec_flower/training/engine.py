"""What all engines share: cut the cohort into chunks, make each ready, collect what comes out.

Every client trains a *sub-model*: its own users' rows and only those item rows that its samples
and histories touch, so a step costs what the client's data cost and weight decay reaches no other
row.

Source: McMahan et al. 2017, Algorithm 1, ClientUpdate.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import Seed
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.data.splits.base import Negatives
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.training.batches import Touched, Work
from fedrec_flower.training.cohort import Cohort, Index
from fedrec_flower.training.config import LocalTraining
from fedrec_flower.training.gradient_correction import Correction, Guide, Unguided, num_steps
from fedrec_flower.training.history_batches import Reading
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.negative_sampling import Sampler, Samples, Task

_NOBODY = np.zeros(0, np.int64)
_UNGUIDED = Unguided()


class PersonalParameters(Protocol):
    """Where a node keeps what stays with its clients."""

    def gather(self, cohort: Cohort, touched: Touched) -> Tensors:
        """The clients' personal parameters, laid out as `Work.values`."""
        ...


@dataclass(frozen=True, slots=True)
class Trained:
    """What came out of a chunk of clients.

    Attributes:
        cohort: the clients.
        touched: the item rows they touched.
        updates: what they may send.
        personal: new personal parameters, laid out as `Work.values`. Stay on the node.
        loss: float64 (num_clients,), mean training loss over each client's samples. Of whom it is
            not finite, the update is zero and what is personal as it was.
        rates: learning rate of each parameter in `updates`.
        num_steps: by its name int64 (num_clients,), the steps in which it learnt.
    """

    cohort: Cohort
    touched: Touched
    updates: Updates
    personal: Tensors
    loss: NDArray[np.float64]
    rates: Mapping[str, float]
    num_steps: Mapping[str, Index]

    def parted(self, tables: Collection[str]) -> tuple[Self, list[int]]:
        """What the clients whose loss is finite may send, and the codes of the others.

        Args:
            tables: names of the parameters with a row per item.
        """
        finite = np.isfinite(self.loss)
        if finite.all():
            return self, []
        places = np.flatnonzero(finite)
        taken = {name: steps[places] for name, steps in self.num_steps.items()}
        some = replace(self, updates=self.updates.select(places, tables), num_steps=taken)
        return some, self.updates.clients[~finite].tolist()


class Engine(ABC):
    """Trains the clients of a node; what a client learns depends on no other client.

    Args:
        model: the recommender.
        training: how a client trains.
        task: "ranking" samples negatives, "rating" predicts raw ratings.
        negatives: the pool negatives are drawn from; "legacy" leaks.
        num_items: size of the catalogue.
        seed: what draws follow from; see `seeding`.
        look_ahead: length of a step, in units of the learning rates, that goes before every step:
            plain descent on the first half of the batch. There the gradient of the other half is
            taken, and applied where the first step began. None: whole batches, no step ahead.
            Source: Fallah et al. 2020, Algorithm 1, first order, its two batches drawn as one.
    """

    def __init__(
        self,
        model: Recommender,
        training: LocalTraining,
        task: Task,
        negatives: Negatives,
        num_items: int,
        seed: Seed,
        look_ahead: float | None = None,
    ) -> None:
        self.model, self.training, self.negatives = model, training, negatives
        self.look_ahead = look_ahead
        self.sampler = Sampler(task, training.width, training.num_negatives, num_items, seed)

    @abstractmethod
    def fit(self, work: Work) -> NDArray[np.float64]:
        """Train a chunk: change `work.values` in place, return mean losses (num_clients,)."""

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """Which parameters learn from a batch, one step after another; see `Recommender`."""
        learning = (phase - self.model.frozen for phase in self.model.phases(epoch))
        return [phase for phase in learning if phase]

    @abstractmethod
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Cut the clients into pieces that are trained at once."""

    def train(
        self,
        clients: Sequence[ClientData],
        given: Versions,
        personal: PersonalParameters,
        round_: int,
        guide: Guide = _UNGUIDED,
    ) -> Iterator[Trained]:
        """Train each client from what it is given.

        Args:
            clients: the cohort hosted here.
            given: the shared parameters that each client starts from; left unchanged.
            personal: gives the clients' personal parameters.
            round_: the round, part of the address of every random draw.
            guide: says what is added to the gradients.

        """
        self.model.begin(round_)
        for chunk in self.chunks(clients):
            yield self._train_chunk(chunk, given, personal, round_, guide)

    def _train_chunk(
        self,
        chunk: Sequence[ClientData],
        given: Versions,
        personal: PersonalParameters,
        round_: int,
        guide: Guide,
    ) -> Trained:
        cohort = Cohort.gather(chunk, spare_held_out=self.negatives == "legacy")
        epochs, touched, reading = self._drawn(cohort, round_)
        mine = personal.gather(cohort, touched)
        values = {name: self._copies(name, given, cohort, touched) for name in given.tensors}
        known = self._known(cohort, touched, round_)
        weights = cohort.num_examples.astype(np.float64)
        trained = {n: value for n, value in values.items() if n not in self.model.frozen}
        layout = Updates(cohort.clients, weights, touched.offsets, touched.rows, {})
        rates = {name: self._rate(name) for name in trained}
        correction = Correction.of(guide, layout, trained, rates)
        everything = values | mine | known
        work = Work(self.model, cohort, epochs, touched, reading, everything, correction)
        loss = self.fit(work)
        diverged = np.flatnonzero(~np.isfinite(loss))
        if len(diverged):
            _put_back(work, mine, personal.gather(cohort, touched), diverged)
        for name, value in trained.items():
            if self._is_table(name):
                given.subtract_rows(value, name, cohort, touched)
            else:
                np.subtract(value, given.whole(name, cohort.clients), out=value)
        _put_back(work, trained, dict.fromkeys(trained), diverged)
        updates = Updates(cohort.clients, weights, *self._told(trained, touched), trained)
        phases = [self.phases(epoch) for epoch in range(len(epochs))]
        taken = num_steps(self.training.batch_size, epochs, phases, trained)
        return Trained(cohort, touched, updates, mine, loss, rates, taken)

    def _drawn(self, cohort: Cohort, round_: int) -> tuple[list[Samples], Touched, Reading | None]:
        """What the clients train on and read in each local epoch, and the rows that touches."""
        model, sampler, count = self.model, self.sampler, range(self.training.local_epochs)
        if not isinstance(model, HistoryRecommender):
            epochs = [sampler.draw(cohort, round_, epoch) for epoch in count]
            return epochs, Touched.find(epochs, _NOBODY, _NOBODY, sampler.num_items), None
        entries = model.entries(cohort.history, sampler.num_items)
        in_order = entries.in_order
        epochs = [
            sampler.draw(cohort, round_, epoch, in_order=in_order, by_user=True) for epoch in count
        ]
        sizes = np.diff(entries.offsets[cohort.user_offsets])
        reader = np.repeat(np.arange(len(cohort)), sizes)
        touched = Touched.find(epochs, reader, entries.item, sampler.num_items)
        rate, row = model.input_dropout, touched.place_of(reader, entries.item)
        kept = [sampler.keep(cohort, sizes, round_, epoch, 1 - rate) for epoch in count]
        noise = [sampler.noise(cohort, round_, epoch, model.noise_dim) for epoch in count]
        return epochs, touched, Reading.lay_out(entries, cohort, row, kept, noise)

    def _known(self, cohort: Cohort, touched: Touched, round_: int) -> Tensors:
        """What is known of the cohort's users and the touched items; see `Recommender.features`."""
        if next(self.model.buffers(), None) is None:
            return {}  # as of most models
        sizes, share = np.diff(cohort.user_offsets), 1 - self.model.history_dropout
        kept = self.sampler.keep(cohort, sizes, round_, epoch=0, share=share)
        return self.model.features(cohort.attributes, cohort.history.mask(kept), touched.rows)

    def _told(self, values: Tensors, touched: Touched) -> tuple[Index, Index]:
        """Offsets and rows of what is sent; without a table nobody need know who touched what."""
        if any(self._is_table(name) for name in values):
            return touched.offsets, touched.rows
        return np.zeros_like(touched.offsets), _NOBODY

    def _rate(self, name: str) -> float:
        setting, tables = self.training, self.model.user_rows | self.model.item_rows
        return setting.learning_rate if name in tables else setting.dense_learning_rate

    def _is_table(self, name: str) -> bool:
        return name in self.model.item_rows

    def _copies(
        self, name: str, given: Versions, cohort: Cohort, touched: Touched
    ) -> NDArray[np.float32]:
        """The touched rows of a table, or one copy per client of anything else."""
        if self._is_table(name):
            return given.rows(name, cohort, touched)
        return given.whole(name, cohort.clients)


def _put_back(
    work: Work, values: Tensors, before: Mapping[str, NDArray[np.float32] | None], places: Index
) -> None:
    """Undo what some clients of a chunk, by their places, have learnt; None: nothing is zero."""
    for name, earlier in before.items():
        for place in places:
            part = place
            if name in work.tables:
                start, stop = work.row_offsets(name)[place : place + 2]
                part = slice(start, stop)
            values[name][part] = 0 if earlier is None else earlier[part]
