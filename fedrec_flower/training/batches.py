"""The data of a chunk of clients, prepared for training, and the batches of its steps."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.core.types import IndexArray, Tensors
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.training.cohort import Cohort, owners
from fedrec_flower.training.gradient_correction import CorrectionTerms
from fedrec_flower.training.history_batches import HistoryBatches
from fedrec_flower.training.negative_sampling import Samples

_MAX_KEYS_PER_USED_KEY = 10  # above this ratio of possible to used keys, sorting is faster


@dataclass(frozen=True, slots=True)
class ActiveRows:
    """The item rows that each client's samples and histories touch: the client's sub-model.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        rows: int64 (num_rows,), item codes, ascending within each client.
        places: per epoch int64 (n, width), the position in `rows` of each sample's items.
    """

    offsets: IndexArray
    rows: IndexArray
    places: list[IndexArray]

    @classmethod
    def find(
        cls, epochs: list[Samples], reader: IndexArray, read: IndexArray, num_items: int
    ) -> "ActiveRows":
        """Find the distinct items of each client.

        Args:
            epochs: the samples.
            reader: int64 (m,), the client of each history entry.
            read: int64 (m,), the item code of each history entry.
            num_items: size of the catalogue.
        """
        num_clients = len(epochs[0].offsets) - 1
        sample_keys = [owners(s.offsets)[:, None] * num_items + s.item for s in epochs]
        history_keys = reader * num_items + read
        all_keys = np.concatenate([*(key.reshape(-1) for key in sample_keys), history_keys])
        distinct, place = _distinct(all_keys, num_clients * num_items)
        offsets = np.searchsorted(distinct, np.arange(num_clients + 1) * num_items)
        ends = np.cumsum([key.size for key in sample_keys])
        parts = np.split(place, ends)[: len(sample_keys)]
        places = [part.reshape(key.shape) for part, key in zip(parts, sample_keys, strict=True)]
        return cls(offsets.astype(np.int64), distinct % num_items, places)

    @classmethod
    def none(cls, num_clients: int) -> "ActiveRows":
        """No rows, for parameters without a row per item."""
        return cls(np.zeros(num_clients + 1, np.int64), np.zeros(0, np.int64), [])

    def place_of(self, client: IndexArray, item: IndexArray) -> IndexArray:
        """int64 (m,): the position in `rows` of each client's item."""
        keys = owners(self.offsets) << 32 | self.rows
        return np.searchsorted(keys, client << 32 | item).astype(np.int64)


def _distinct(keys: IndexArray, size: int) -> tuple[IndexArray, IndexArray]:
    """The distinct keys, ascending, and the position of each of `keys` among them.

    Args:
        keys: int64 (n,), from 0 to below `size`.
        size: the number of possible keys.
    """
    if size > _MAX_KEYS_PER_USED_KEY * len(keys):
        distinct, place = np.unique(keys, return_inverse=True)
        return distinct, place.astype(np.int64)
    # Flags instead of sorting: faster unless few of the possible keys are used.
    is_used = np.zeros(size, np.bool_)
    is_used[keys] = True
    distinct = np.flatnonzero(is_used)
    places = np.empty(size, np.int32)
    places[distinct] = np.arange(len(distinct))
    return distinct, places[keys].astype(np.int64)


@dataclass(frozen=True, slots=True)
class CohortBatch:
    """A chunk of clients, ready to be trained.

    Attributes:
        model: the recommender; a trainer writes or reads its parameters.
        cohort: the clients.
        epochs: samples of each local epoch.
        touched: the item rows that the clients touch.
        reading: the clients' histories; None for models without histories.
        values: the trained parameters by name, changed in place. A parameter with a row per user
            has the rows of the cohort's users, one with a row per item the touched rows, any
            other one copy per client, (num_clients, ...).
        correction: the term that is added to the gradients.
    """

    model: Recommender
    cohort: Cohort
    epochs: list[Samples]
    touched: ActiveRows
    reading: HistoryBatches | None
    values: Tensors
    correction: CorrectionTerms

    @property
    def needs_vmap(self) -> bool:
        """Whether clients differ in more than table rows, so that `vmap` over clients is needed."""
        return bool(self.dense) or self.reading is not None

    def history_only(self, table: str) -> bool:
        """Whether only histories look up this table, and no table serves both purposes."""
        model = self.model
        if not isinstance(model, HistoryRecommender):
            return False
        return table in model.history_only

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

    def row_offsets(self, name: str) -> IndexArray:
        """int64 (num_clients + 1,): where each client's rows of a table begin."""
        by_user = name in self.model.user_rows
        return self.cohort.user_offsets if by_user else self.touched.offsets


@dataclass(frozen=True, slots=True)
class Step:
    """One step of all clients that still have samples in an epoch.

    Clients are sorted by size, largest first, so the active clients are always the first ones.

    Attributes:
        epoch: the local epoch.
        active: number of clients that still have samples.
        first: int64 (active,), where each client's batch begins in the epoch's samples.
        size: int64 (active,), samples in each client's batch, at least one.
    """

    epoch: int
    active: int
    first: IndexArray
    size: IndexArray

    def halves(self) -> list["Step"]:
        """The first half of every client's batch, then the second half, which is not smaller.

        A batch of one sample has no first half. If all batches have one sample, the list has only
        the second half.
        """
        half = self.size // 2
        num_with_first_half = int(np.searchsorted(-half, 0, side="left"))
        second = Step(self.epoch, self.active, self.first + half, self.size - half)
        if not num_with_first_half:
            return [second]
        first = Step(
            self.epoch,
            num_with_first_half,
            self.first[:num_with_first_half],
            half[:num_with_first_half],
        )
        return [first, second]


def steps(epochs: list[Samples], batch_size: int | None) -> Iterator[Step]:
    """The steps of a chunk whose clients are sorted by size, largest first."""
    for epoch, samples in enumerate(epochs):
        sizes = np.diff(samples.offsets)
        largest = int(sizes.max(initial=1))
        batch = largest if batch_size is None else batch_size
        for start in range(0, int(sizes.max(initial=0)), batch):
            active = int(np.searchsorted(-sizes, -start, side="left"))
            remaining = sizes[:active] - start
            yield Step(
                epoch, active, samples.offsets[:active] + start, np.minimum(remaining, batch)
            )


@dataclass(frozen=True, slots=True)
class Batch:
    """The n samples of one step, padded to a rectangle if `vmap` runs over the clients.

    Attributes:
        active: number of clients that have samples in this step.
        client: int64 (n,), position of each sample's client.
        user: int64, row of the flat user tables. Shape (n,), one per sample; or (active,), one
            per client, if `vmap` runs over clients with a single user each and no history.
        item: int64 (n, width), rows of the flat item tables.
        target: float32 (n,), labels or ratings.
        share: float32 (n,), 1 / number of samples in the client's batch, so that the weighted sum
            is the client's mean; 0 for padding.
        history: the clients' histories, with a leading axis of clients, (active, ...); None for
            models without histories.
    """

    active: int
    client: Tensor
    user: Tensor
    item: Tensor
    target: Tensor
    share: Tensor
    history: History | None

    @classmethod
    def take(cls, chunk: CohortBatch, step: Step, device: torch.device) -> "Batch":
        """Copy the samples of a step to a device."""
        samples = chunk.epochs[step.epoch]
        item_rows = chunk.touched.places[step.epoch]
        column = np.arange(step.size.max())
        is_sample = column < step.size[:, None]
        if chunk.needs_vmap:
            # A padded place repeats the batch's first sample with share 0.
            chosen = (step.first[:, None] + np.where(is_sample, column, 0)).reshape(-1)
            is_sample = is_sample.reshape(-1)
            length = np.full(step.active, len(column))
        else:
            chosen = (step.first[:, None] + column)[is_sample]
            is_sample = np.ones(len(chosen), np.bool_)
            length = step.size
        client = np.repeat(np.arange(step.active), length)
        user = samples.user[chosen]
        one_user_per_client = (
            chunk.needs_vmap
            and chunk.reading is None
            and chunk.cohort.num_users == len(chunk.cohort)
        )
        arrays = {
            "client": client,
            "user": samples.user[step.first] if one_user_per_client else user,
            "item": item_rows[chosen],
            "target": samples.target[chosen],
            "share": (is_sample / step.size[client]).astype(np.float32),
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        history = None
        if chunk.reading is not None:
            context = None if samples.context is None else samples.context[chosen]
            history = chunk.reading.history(step.epoch, client, user, context, item_rows.shape[1])
            active = {n: t[: step.active].to(device) for n, t in history.tensors().items()}
            history = History(**active)
        return cls(active=step.active, history=history, **tensors)

    def rows(self, chunk: CohortBatch, table: str) -> Tensor:
        """The rows of a table for which the step computes gradients, int64.

        Without histories: `user`, or `item` flattened, one row per lookup. With histories: every
        row of the active clients, because most rows are looked up many times. A table that is
        looked up for histories only: one row per history entry.
        """
        if self.history is None:
            return self.user if table in chunk.model.user_rows else self.item.reshape(-1)
        if chunk.history_only(table):
            return self.history.item.reshape(-1)
        return torch.arange(chunk.row_offsets(table)[self.active], device=self.item.device)
