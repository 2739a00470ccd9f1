"""One step of many clients, as tensors: their samples, and what they may read."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.models.history import History
from fedrec_flower.training.work import Step, Work


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
