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
        owner: int64 (n,), its user, counted from the client's first.
        user: int64, row of the flat user tables: one per sample, (n,), or in a rectangle of
            clients with a single user each, one per client, (active,).
        item: int64 (n, width), rows of the flat item tables.
        target: float32 (n,).
        share: float32 (n,), one over the samples in the client's batch, so that sums are means;
            zero for padding.
        history: what the clients read, with a leading axis of clients, (active, ...); None for
            models that read nothing.
    """

    active: int
    client: Tensor
    owner: Tensor
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
        one_user_each = work.apart and work.cohort.num_users == len(work.cohort)
        arrays = {
            "client": client,
            "owner": user - work.cohort.user_offsets[client],
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
        """The rows of a table that the step looks up, one by one.

        They are `user`, or all of `item`; where a table is looked up for histories too, a client's
        rows of `item` are followed by those of its history.
        """
        if table in work.model.user_rows:
            return self.user
        if self.history is None:
            return self.item.reshape(-1)
        for_samples, for_history = work.looked_up(table)
        blocks = [self.item.view(self.active, -1)] * for_samples
        return torch.cat(blocks + [self.history.item] * for_history, 1).reshape(-1)
