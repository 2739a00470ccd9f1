"""All clients of a chunk in one computation: no Python per client, the same mathematics.

Tables are laid out flat, every client's rows after the last one's, so one gather serves all
clients. Other parameters have a copy per client, which `torch.func.vmap` hands to the model's own
`forward`: a model is written once and trains here too.

Source of the technique: Ro, Suresh and Wu 2021, FedJAX, section 3 (`vmap` over clients).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap

from fedrec_flower.prepared import ClientData
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.losses import LOSSES
from fedrec_flower.training.memory import cut
from fedrec_flower.training.optimizers import Optimizer
from fedrec_flower.training.work import Step, Work, steps

Tensors = dict[str, Tensor]


class VectorizedEngine(Engine):
    """Trains the clients of a chunk side by side."""

    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Clients of similar size together, largest first, as many as the memory allows."""
        return cut(clients, self.model, self.training, self.sampler)

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`; clients come largest first."""
        values = {name: torch.from_numpy(value) for name, value in work.values.items()}
        optimizer = Optimizer(self.training, work, values)
        loss_of = LOSSES[self.training.loss]
        total = torch.zeros(len(work.cohort), dtype=torch.float64)
        for step in steps(work.epochs, self.training.batch_size):
            batch = _Batch.take(work, step)
            active = {name: values[name][: _end(work, name, step)] for name in values}
            leaves = {name: value.detach().requires_grad_() for name, value in active.items()}
            losses = loss_of(_scores(work, leaves, batch), batch.target) * batch.share
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
            optimizer.step(active, dict(zip(leaves, gradients, strict=True)), step)
            seen = losses.detach().double() * batch.size
            total.index_add_(0, batch.client, seen)
        count = sum(np.diff(samples.offsets) for samples in work.epochs)
        return np.asarray(total.numpy() / np.maximum(count, 1))


@dataclass(frozen=True, slots=True)
class _Batch:
    """The samples of one step, n in all; padded to a rectangle if parameters differ by client.

    Attributes:
        active: clients at work.
        client: int64 (n,), whose sample it is.
        user: int64 (n,), row of the flat user tables.
        item: int64 (n, width), rows of the flat item tables.
        target: float32 (n,).
        size: float64 (n,), samples in the client's batch.
        share: float32 (n,), one over that, so that sums are means; zero for padding.
    """

    active: int
    client: Tensor
    user: Tensor
    item: Tensor
    target: Tensor
    size: Tensor
    share: Tensor

    @classmethod
    def take(cls, work: Work, step: Step) -> "_Batch":
        samples, places = work.epochs[step.epoch], work.touched.places[step.epoch]
        column = np.arange(step.size.max())
        real = column < step.size[:, None]
        # A pad repeats the batch's first sample, with no share in the mean.
        index = step.first[:, None] + np.where(real, column, 0)
        keep = np.ones_like(real) if work.dense else real
        client, _ = np.nonzero(keep)
        size = step.size[client].astype(np.float64)
        chosen = index[keep]
        return cls(
            active=step.active,
            client=torch.from_numpy(client),
            user=torch.from_numpy(samples.user[chosen]),
            item=torch.from_numpy(places[chosen]),
            target=torch.from_numpy(samples.target[chosen]),
            size=torch.from_numpy(size),
            share=torch.from_numpy((real[keep] / size).astype(np.float32)),
        )


def _scores(work: Work, leaves: Tensors, batch: _Batch) -> Tensor:
    """float32 (n, width): every client's samples scored with its own parameters."""
    width = batch.item.shape[1]
    user, item = batch.user.repeat_interleave(width), batch.item.reshape(-1)
    tables = {name: leaves[name] for name in work.tables}
    if not work.dense:
        return _call(work, tables, user, item).view(-1, width)
    dense = {name: leaves[name] for name in work.dense}

    def one_client(own: Tensors, user: Tensor, item: Tensor) -> Tensor:
        return _call(work, {**tables, **own}, user, item)

    rectangle = (batch.active, -1)
    scores: Tensor = vmap(one_client)(dense, user.view(rectangle), item.view(rectangle))
    return scores.reshape(-1, width)


def _call(work: Work, parameters: Tensors, user: Tensor, item: Tensor) -> Tensor:
    scores: Tensor = functional_call(work.model, parameters, (user, item), strict=True)
    return scores


def _end(work: Work, name: str, step: Step) -> int:
    """Where the rows (or copies) of the clients still at work end."""
    if name in work.tables:
        return int(work.row_offsets(name)[step.active])
    return step.active
