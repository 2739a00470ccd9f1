"""The reference engine: an ordinary PyTorch loop, one client after another."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.models.history import History
from fedrec_flower.prepared import ClientData
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.objective import Objective
from fedrec_flower.training.work import Work


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
            users, items = (
                torch.from_numpy(samples.user),
                torch.from_numpy(work.touched.places[epoch]),
            )
            target, width = torch.from_numpy(samples.target), items.shape[1]
            size = self.training.batch_size or max(len(samples), 1)
            for start in range(0, len(samples), size):
                batch = slice(start, start + size)
                pairs = users[batch].repeat_interleave(width), items[batch].reshape(-1)
                history = _history(work, epoch, batch, width)
                for phase, learning in enumerate(self.model.phases(epoch)):
                    self._let_learn(learning)
                    optimizer.zero_grad()
                    loss = objective(*pairs, target[batch], history).mean()
                    loss.backward()
                    optimizer.step()
                    if phase == 0:  # the loss as the batch was met
                        total += loss.item() * len(target[batch])
                count += len(target[batch])
        return np.array([total / max(count, 1)])

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


def _history(work: Work, epoch: int, batch: slice, width: int) -> History | None:
    """What the samples of a batch may read; nothing where the model reads no history."""
    if work.reading is None:
        return None
    samples = work.epochs[epoch]
    user, context = samples.user[batch], samples.context
    context = None if context is None else context[batch]
    history = work.reading.history(epoch, np.zeros_like(user), user, context, width)
    return History(**{name: tensor[0] for name, tensor in history.tensors().items()})
