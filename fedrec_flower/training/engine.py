"""What all engines share: cut the cohort into chunks, make each ready, collect what comes out.

Every client trains a *sub-model*: its own users' rows and only those item rows that its samples
and histories touch, so a step costs what the client's data cost and weight decay reaches no other
row.

Source: McMahan et al. 2017, Algorithm 1, ClientUpdate.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import Updates
from fedrec_flower.errors import TrainingError
from fedrec_flower.models.base import Recommender, Tensors
from fedrec_flower.models.history import HistoryRecommender
from fedrec_flower.prepared import ClientData
from fedrec_flower.rows import subtract_rows
from fedrec_flower.splits import Negatives
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.reading import Reading
from fedrec_flower.training.samples import Sampler, Samples, Task
from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.work import Touched, Work

_NOBODY = np.zeros(0, np.int64)


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
        loss: float64 (num_clients,), mean training loss over each client's samples.
    """

    cohort: Cohort
    touched: Touched
    updates: Updates
    personal: Tensors
    loss: NDArray[np.float64]


class Engine(ABC):
    """Trains the clients of a node; what a client learns depends on no other client.

    Args:
        model: the recommender.
        training: how a client trains.
        task: "ranking" samples negatives, "rating" predicts raw ratings.
        negatives: the pool negatives are drawn from; "legacy" leaks.
        num_items: size of the catalogue.
        seed: the experiment's seed.
    """

    def __init__(
        self,
        model: Recommender,
        training: LocalTraining,
        task: Task,
        negatives: Negatives,
        num_items: int,
        seed: int,
    ) -> None:
        self.model, self.training, self.negatives = model, training, negatives
        pairwise = training.loss == "bpr"
        self.sampler = Sampler(task, pairwise, training.num_negatives, num_items, seed)

    @abstractmethod
    def fit(self, work: Work) -> NDArray[np.float64]:
        """Train a chunk: change `work.values` in place, return mean losses (num_clients,)."""

    @abstractmethod
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Cut the clients into pieces that are trained at once."""

    def train(
        self,
        clients: Sequence[ClientData],
        shared: Tensors,
        personal: PersonalParameters,
        round_: int,
    ) -> Iterator[Trained]:
        """Train each client from the same global parameters.

        Args:
            clients: the cohort hosted here.
            shared: global parameters by name, full tables; left unchanged.
            personal: gives the clients' personal parameters.
            round_: the round, part of the address of every random draw.

        Raises:
            TrainingError: if a loss is not finite; names client and round.
        """
        self.model.begin(round_)
        for chunk in self.chunks(clients):
            yield self._train_chunk(chunk, shared, personal, round_)

    def _train_chunk(
        self,
        chunk: Sequence[ClientData],
        shared: Tensors,
        personal: PersonalParameters,
        round_: int,
    ) -> Trained:
        cohort = Cohort.gather(chunk, spare_held_out=self.negatives == "legacy")
        epochs, touched, reading = self._drawn(cohort, round_)
        mine = personal.gather(cohort, touched)
        values = {name: self._copies(name, v, cohort, touched) for name, v in shared.items()}
        work = Work(self.model, cohort, epochs, touched, reading, values | mine)
        loss = self.fit(work)
        _require_finite(loss, cohort, round_)
        for name, before in shared.items():
            if self._is_table(name):
                subtract_rows(values[name], before, touched.rows)
            else:
                values[name] -= before
        weights = cohort.num_examples.astype(np.float64)
        updates = Updates(cohort.clients, weights, touched.offsets, touched.rows, values)
        return Trained(cohort, touched, updates, mine, loss)

    def _drawn(self, cohort: Cohort, round_: int) -> tuple[list[Samples], Touched, Reading | None]:
        """What the clients train on and read in each local epoch, and the rows that touches."""
        model, sampler, count = self.model, self.sampler, range(self.training.local_epochs)
        if not isinstance(model, HistoryRecommender):
            epochs = [sampler.draw(cohort, round_, epoch) for epoch in count]
            return epochs, Touched.find(epochs, _NOBODY, _NOBODY, sampler.num_items), None
        entries = model.entries(cohort.history, sampler.num_items)
        in_order = entries.in_order
        epochs = [sampler.draw(cohort, round_, epoch, in_order=in_order) for epoch in count]
        sizes = np.diff(entries.offsets[cohort.user_offsets])
        reader = np.repeat(np.arange(len(cohort)), sizes)
        touched = Touched.find(epochs, reader, entries.item, sampler.num_items)
        rate, row = model.input_dropout, touched.place_of(reader, entries.item)
        kept = [sampler.keep(cohort, sizes, round_, epoch, 1 - rate) for epoch in count]
        return epochs, touched, Reading.lay_out(entries, cohort, row, kept)

    def _is_table(self, name: str) -> bool:
        return name in self.model.item_rows

    def _copies(
        self, name: str, value: NDArray[np.float32], cohort: Cohort, touched: Touched
    ) -> NDArray[np.float32]:
        """The touched rows of a table, or one copy per client of anything else."""
        if self._is_table(name):
            return value.take(touched.rows, axis=0)
        return np.repeat(value[None], len(cohort), axis=0)


def _require_finite(loss: NDArray[np.float64], cohort: Cohort, round_: int) -> None:
    bad = np.flatnonzero(~np.isfinite(loss))
    if len(bad):
        client, value = cohort.clients[bad[0]], loss[bad[0]]
        advice = "lower training.learning_rate or training.dense_learning_rate"
        raise TrainingError(f"client {client}, round {round_}: the loss is {value}; {advice}")
