"""A chunk of clients made ready for an engine: samples, touched rows, parameters laid out flat.

One step of many clients, as tensors: their samples, and what they may read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.core.types import Tensors
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.training.cohort import Cohort, Index, owners
from fedrec_flower.training.gradient_correction import Correction
from fedrec_flower.training.history_batches import Reading
from fedrec_flower.training.negative_sampling import Samples

_SCARCE = 10  # possible keys for each one used, from which on sorting is faster


@dataclass(frozen=True, slots=True)
class Touched:
    """The item rows that each client's samples and histories touch: its sub-model.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        rows: int64 (num_rows,), item codes, ascending within each client.
        places: per epoch int64 (n, width): the row of each sample's items, counted from the
            cohort's first row.
    """

    offsets: Index
    rows: Index
    places: list[Index]

    @classmethod
    def find(cls, epochs: list[Samples], reader: Index, read: Index, num_items: int) -> "Touched":
        """Find the distinct items, client by client.

        Args:
            epochs: the samples.
            reader: int64 (m,), the client that reads an item in its history.
            read: int64 (m,), the item's code.
            num_items: size of the catalogue.
        """
        num_clients = len(epochs[0].offsets) - 1
        keys = [owners(s.offsets)[:, None] * num_items + s.item for s in epochs]
        every = np.concatenate([*(key.reshape(-1) for key in keys), reader * num_items + read])
        hit, place = _distinct(every, num_clients * num_items)
        offsets = np.searchsorted(hit, np.arange(num_clients + 1) * num_items)
        cuts = np.cumsum([key.size for key in keys])
        places = np.split(place, cuts)[: len(keys)]
        shaped = [own.reshape(key.shape) for own, key in zip(places, keys, strict=True)]
        return cls(offsets.astype(np.int64), hit % num_items, shaped)

    def place_of(self, client: Index, item: Index) -> Index:
        """int64 (m,): the row of each item that a client touches, counted as `places`."""
        rows = owners(self.offsets) << 32 | self.rows
        return np.searchsorted(rows, client << 32 | item).astype(np.int64)


def _distinct(keys: Index, size: int) -> tuple[Index, Index]:
    """The distinct keys, ascending, and the place of each of `keys` among them.

    Args:
        keys: int64 (n,), from zero to below `size`.
        size: how many keys there could be.
    """
    if size > _SCARCE * len(keys):
        hit, place = np.unique(keys, return_inverse=True)
        return hit, place.astype(np.int64)
    # Without sorting, which costs less than a look at every possible key only where few are used.
    flags = np.zeros(size, np.bool_)
    flags[keys] = True
    hit = np.flatnonzero(flags)
    places = np.empty(size, np.int32)
    places[hit] = np.arange(len(hit))
    return hit, places[keys].astype(np.int64)


@dataclass(frozen=True, slots=True)
class Work:
    """A chunk of clients, ready to be trained.

    Attributes:
        model: the recommender; an engine fills or reads its parameters.
        cohort: the clients.
        epochs: samples of each local epoch.
        touched: the item rows they touch.
        reading: the clients' histories; None for models that read none.
        values: by name, what is trained, changed in place: a parameter with a row per user has
            the cohort's users one after another, one with a row per item the touched rows, any
            other one copy per client, (num_clients, ...).
        correction: what is added to the gradients.
    """

    model: Recommender
    cohort: Cohort
    epochs: list[Samples]
    touched: Touched
    reading: Reading | None
    values: Tensors
    correction: Correction

    @property
    def apart(self) -> bool:
        """Whether clients differ in more than rows, so that each must be computed for itself."""
        return bool(self.dense) or self.reading is not None

    def only_read(self, table: str) -> bool:
        """Whether a table is looked up for histories alone, and no other table is for them."""
        reader = self.model
        if not isinstance(reader, HistoryRecommender):
            return False
        return table in reader.history_rows and reader.history_rows.isdisjoint(reader.scored_rows)

    @property
    def tables(self) -> list[str]:
        """Names of the parameters with a row per user or per item."""
        rows = self.model.user_rows | self.model.item_rows
        return [name for name in self.values if name in rows]

    @property
    def dense(self) -> list[str]:
        """Names of all other parameters."""
        rows = self.model.user_rows | self.model.item_rows
        return [name for name in self.values if name not in rows]

    def row_offsets(self, name: str) -> Index:
        """Where each client's rows of a table begin: int64 (num_clients + 1,)."""
        by_user = name in self.model.user_rows
        return self.cohort.user_offsets if by_user else self.touched.offsets


@dataclass(frozen=True, slots=True)
class Step:
    """One step of all clients that still have samples in an epoch.

    Clients come largest first, so those still at work are always the first ones.

    Attributes:
        epoch: the local epoch.
        active: how many clients still have samples.
        first: int64 (active,), where each one's batch begins in the epoch's samples.
        size: int64 (active,), samples in each one's batch, at least one.
    """

    epoch: int
    active: int
    first: Index
    size: Index

    def halves(self) -> list["Step"]:
        """The first half of every client's batch, then the rest, which is never the smaller.

        A batch of one sample has no first half; where all are, there is nothing but the rest.
        """
        half = self.size // 2
        some = int(np.searchsorted(-half, 0, side="left"))
        rest = Step(self.epoch, self.active, self.first + half, self.size - half)
        if not some:
            return [rest]
        return [Step(self.epoch, some, self.first[:some], half[:some]), rest]


def steps(epochs: list[Samples], batch_size: int | None) -> Iterator[Step]:
    """The steps of a chunk whose clients come largest first."""
    for epoch, samples in enumerate(epochs):
        sizes = np.diff(samples.offsets)
        batch = batch_size or int(sizes.max(initial=1))
        for start in range(0, int(sizes.max(initial=0)), batch):
            active = int(np.searchsorted(-sizes, -start, side="left"))
            left = sizes[:active] - start
            yield Step(epoch, active, samples.offsets[:active] + start, np.minimum(left, batch))


@dataclass(frozen=True, slots=True)
class Batch:
    """The samples of one step, n in all; padded to a rectangle if clients are computed apart.

    Attributes:
        active: clients at work.
        client: int64 (n,), whose sample it is.
        user: int64, row of the flat user tables: one per sample, (n,), or in a rectangle of
            clients with a single user each that read nothing, one per client, (active,).
        item: int64 (n, width), rows of the flat item tables.
        target: float32 (n,).
        share: float32 (n,), one over the samples in the client's batch, so that sums are means;
            zero for padding.
        history: what the clients read, with a leading axis of clients, (active, ...); None for
            models that read nothing.
    """

    active: int
    client: Tensor
    user: Tensor
    item: Tensor
    target: Tensor
    share: Tensor
    history: History | None

    @classmethod
    def take(cls, work: Work, step: Step, device: torch.device) -> "Batch":
        """The samples of a step on a device."""
        samples, places = work.epochs[step.epoch], work.touched.places[step.epoch]
        column, length = np.arange(step.size.max()), step.size
        real = column < step.size[:, None]
        if work.apart:
            # A pad repeats the batch's first sample, with no share in the mean.
            chosen = (step.first[:, None] + np.where(real, column, 0)).reshape(-1)
            real, length = real.reshape(-1), np.full(step.active, len(column))
        else:
            chosen = (step.first[:, None] + column)[real]
            real = np.ones(len(chosen), np.bool_)
        client, user = np.repeat(np.arange(step.active), length), samples.user[chosen]
        one_user_each = (
            work.apart and work.reading is None and work.cohort.num_users == len(work.cohort)
        )
        arrays = {
            "client": client,
            "user": samples.user[step.first] if one_user_each else user,
            "item": places[chosen],
            "target": samples.target[chosen],
            "share": (real / step.size[client]).astype(np.float32),
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        history = None
        if work.reading is not None:
            context = None if samples.context is None else samples.context[chosen]
            history = work.reading.history(step.epoch, client, user, context, places.shape[1])
            active = {n: t[: step.active].to(device) for n, t in history.tensors().items()}
            history = History(**active)
        return cls(active=step.active, history=history, **tensors)

    def rows(self, work: Work, table: str) -> Tensor:
        """The rows of a table that the step has gradients of.

        They are `user`, or all of `item`, one for each that is looked up; for models that read,
        every row of the clients at work, since they look up most of them many times; but those of
        the history one by one where a table is for nothing else.
        """
        if self.history is None:
            return self.user if table in work.model.user_rows else self.item.reshape(-1)
        if work.only_read(table):
            return self.history.item.reshape(-1)
        return torch.arange(work.row_offsets(table)[self.active], device=self.item.device)
