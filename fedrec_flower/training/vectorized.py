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
        return cut(clients, self.model, self.training, self.sampler, activates=True)

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`; clients come largest first."""
        optimizer = Optimizer(self.training, work)
        loss_of = LOSSES[self.training.loss]
        total = torch.zeros(len(work.cohort), dtype=torch.float64)
        for step in steps(work.epochs, self.training.batch_size):
            batch = _Batch.take(work, step)
            leaves = {
                name: _leaf(work, name, optimizer.values[name], batch) for name in work.values
            }
            losses = loss_of(_scores(work, leaves, batch), batch.target) * batch.share
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
            rows = {name: batch.rows(work, name) for name in work.tables}
            optimizer.step(step, dict(zip(leaves, gradients, strict=True)), rows)
            total.index_add_(0, batch.client, losses.detach().double() * batch.size)
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

    def rows(self, work: Work, table: str) -> Tensor:
        """int64 (n,) or (n * width,): the rows of a table that the samples use, one by one."""
        return self.user if table in work.model.user_rows else self.item.reshape(-1)

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


def _leaf(work: Work, name: str, value: Tensor, batch: _Batch) -> Tensor:
    """What the step differentiates by: of a table only the rows in use, one per sample.

    A gradient of the whole table would cost every touched row at every step.
    """
    used = value[batch.rows(work, name)] if name in work.tables else value[: batch.active]
    return used.detach().requires_grad_()


def _scores(work: Work, leaves: Tensors, batch: _Batch) -> Tensor:
    """float32 (n, width): every client's samples scored with its own parameters."""
    num_samples, width = batch.item.shape
    if not work.dense:
        return _call(work, leaves, num_samples, width)
    rectangle = {
        name: v.view(batch.active, -1, *v.shape[1:]) if name in work.tables else v
        for name, v in leaves.items()
    }
    samples = num_samples // batch.active

    def one_client(own: Tensors) -> Tensor:
        return _call(work, own, samples, width)

    scores: Tensor = vmap(one_client)(rectangle)
    return scores.reshape(-1, width)


def _call(work: Work, parameters: Tensors, num_samples: int, width: int) -> Tensor:
    """Score samples whose rows already stand in their order."""
    users = torch.arange(num_samples).repeat_interleave(width)
    items = torch.arange(num_samples * width)
    scores: Tensor = functional_call(work.model, parameters, (users, items), strict=True)
    return scores.view(num_samples, width)
