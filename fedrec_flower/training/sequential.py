"""The reference engine: an ordinary PyTorch loop, one client after another."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.history import History
from fedrec_flower.training.batches import Work
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.losses import Objective


class SequentialEngine(Engine):
    """Trains clients one by one."""

    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Every client on its own."""
        for client in clients:
            yield [client]

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`; the chunk is one client."""
        self.model.load({name: work.values[name] for name in work.tables})
        self.model.load({name: work.values[name][0] for name in work.dense})
        objective, optimizer = Objective(self.model, self.training.loss), self._optimizer()
        total, count = 0.0, 0
        for epoch, samples in enumerate(work.epochs):
            size = self.training.batch_size or max(len(samples), 1)
            for start in range(0, len(samples), size):
                batch = slice(start, min(start + size, len(samples)))
                total += self._learn(work, epoch, batch, objective, optimizer)
            count += len(samples)
        return np.array([total / max(count, 1)])

    def _learn(
        self,
        work: Work,
        epoch: int,
        batch: slice,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
    ) -> float:
        """The steps of one batch; returns the sum of its losses as it was met."""
        met, ahead = 0.0, self.look_ahead is not None and batch.stop - batch.start > 1
        half = (batch.start + batch.stop) // 2 if ahead else batch.start
        for phase, learning in enumerate(self.phases(epoch)):
            self._let_learn(learning)
            total, began = 0.0, dict[Tensor, Tensor]()
            if ahead:
                total += _descend(work, epoch, slice(batch.start, half), objective, optimizer)
                began = self._go_ahead(optimizer)
            total += _descend(work, epoch, slice(half, batch.stop), objective, optimizer)
            for parameter, value in began.items():
                parameter.data.copy_(value)
            self._correct(work)
            optimizer.step()
            if phase == 0:
                met = total
        return met

    def _go_ahead(self, optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
        """A plain step of descent; returns where it began."""
        began = {}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    began[parameter] = parameter.detach().clone()
                    length = (self.look_ahead or 0.0) * group["lr"]
                    parameter.data.sub_(parameter.grad, alpha=length)
        return began

    def _correct(self, work: Work) -> None:
        """Add what corrects the gradients of this batch; see `Correction`."""
        for name, rest in work.correction.rest.items():
            parameter = self.model.get_parameter(name)
            if parameter.grad is not None:
                own = torch.from_numpy(rest if name in work.tables else rest[0])
                factor = work.correction.factor[name]
                parameter.grad.add_(parameter.detach(), alpha=factor).add_(own)

    def _let_learn(self, names: frozenset[str]) -> None:
        # PyTorch's optimisers leave alone what has no gradient, weight decay included.
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)

    def _optimizer(self) -> torch.optim.Optimizer:
        """A fresh optimiser: tables and dense parameters have rates of their own."""
        rows = self.model.user_rows | self.model.item_rows
        named = dict(self.model.named_parameters())
        tables = [value for name, value in named.items() if name in rows]
        dense = [value for name, value in named.items() if name not in rows]
        decay = self.training.weight_decay
        groups = [
            {"params": tables, "lr": self.training.learning_rate, "weight_decay": decay},
            {"params": dense, "lr": self.training.dense_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        if self.training.optimizer == "adam":
            return torch.optim.Adam(groups)
        return torch.optim.SGD(groups)


def _descend(
    work: Work,
    epoch: int,
    batch: slice,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Leave the gradients of a batch's mean loss in the parameters; returns the summed loss."""
    samples, places = work.epochs[epoch], work.touched.places[epoch]
    users, items = (torch.from_numpy(rows[batch]) for rows in (samples.user, places))
    width, target = items.shape[1], torch.from_numpy(samples.target[batch])
    history = _history(work, epoch, batch, width)
    optimizer.zero_grad()
    loss = objective(users.repeat_interleave(width), items.reshape(-1), target, history).mean()
    loss.backward()
    return float(loss.item()) * len(target)


def _history(work: Work, epoch: int, batch: slice, width: int) -> History | None:
    """What the samples of a batch may read; nothing where the model reads no history."""
    if work.reading is None:
        return None
    samples = work.epochs[epoch]
    user, context = samples.user[batch], samples.context
    context = None if context is None else context[batch]
    history = work.reading.history(epoch, np.zeros_like(user), user, context, width)
    alone = History(**{name: tensor[0] for name, tensor in history.tensors().items()})
    return work.reading.narrowed(alone, user)
