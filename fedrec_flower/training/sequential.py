"""The reference engine: an ordinary PyTorch loop, one client after another."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.prepared import ClientData
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.losses import LOSSES
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
        optimizer, loss_of = self._optimizer(), LOSSES[self.training.loss]
        total, count = 0.0, 0
        for samples, place in zip(work.epochs, work.touched.places, strict=True):
            users, items = torch.from_numpy(samples.user), torch.from_numpy(place)
            target = torch.from_numpy(samples.target)
            size = self.training.batch_size or max(len(samples), 1)
            for start in range(0, len(samples), size):
                batch = slice(start, start + size)
                optimizer.zero_grad()
                loss = loss_of(self._scores(users[batch], items[batch]), target[batch]).mean()
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
                optimizer.step()
                total += loss.item() * len(users[batch])
                count += len(users[batch])
        return np.array([total / max(count, 1)])

    def _scores(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        """Scores (batch, width) of the items (batch, width) for the users (batch,)."""
        width = items.shape[1]
        scores: torch.Tensor = self.model(users.repeat_interleave(width), items.reshape(-1))
        return scores.view(-1, width)

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
