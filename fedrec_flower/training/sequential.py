"""The reference trainer: an ordinary PyTorch loop, one client after another."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.history import History
from fedrec_flower.training.batches import CohortBatch
from fedrec_flower.training.losses import Objective
from fedrec_flower.training.trainer import LocalTrainer


class SequentialTrainer(LocalTrainer):
    """Trains clients one by one."""

    @override
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        for client in clients:
            yield [client]

    @override
    def fit(self, chunk: CohortBatch) -> NDArray[np.float64]:
        """Train the one client of the chunk."""
        self.model.load({name: chunk.values[name] for name in chunk.tables})
        self.model.load({name: chunk.values[name][0] for name in chunk.dense})
        objective = Objective(self.model, self.training.loss)
        optimizer = self._optimizer()
        total_loss = 0.0
        num_samples = 0
        for epoch, samples in enumerate(chunk.epochs):
            full = max(len(samples), 1)
            size = full if self.training.batch_size is None else self.training.batch_size
            for start in range(0, len(samples), size):
                batch = slice(start, min(start + size, len(samples)))
                total_loss += self._train_batch(chunk, epoch, batch, objective, optimizer)
            num_samples += len(samples)
        return np.array([total_loss / max(num_samples, 1)])

    def _train_batch(
        self,
        chunk: CohortBatch,
        epoch: int,
        batch: slice,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
    ) -> float:
        """Take the steps of one batch; returns the sum of its losses before the first step."""
        first_loss = 0.0
        takes_inner_step = self.maml_step is not None and batch.stop - batch.start > 1
        half = (batch.start + batch.stop) // 2 if takes_inner_step else batch.start
        for phase, trained in enumerate(self.update_groups(epoch)):
            self._require_grad(trained)
            loss = 0.0
            before_inner_step = dict[Tensor, Tensor]()
            if takes_inner_step:
                loss += _backward(chunk, epoch, slice(batch.start, half), objective, optimizer)
                before_inner_step = self._inner_step(optimizer)
            loss += _backward(chunk, epoch, slice(half, batch.stop), objective, optimizer)
            for parameter, value in before_inner_step.items():
                parameter.data.copy_(value)
            self._correct(chunk)
            optimizer.step()
            if phase == 0:
                first_loss = loss
        return first_loss

    def _inner_step(self, optimizer: torch.optim.Optimizer) -> dict[Tensor, Tensor]:
        """Take a plain SGD step; returns the values before it."""
        before = {}
        length = 0.0 if self.maml_step is None else self.maml_step
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    before[parameter] = parameter.detach().clone()
                    parameter.data.sub_(parameter.grad, alpha=length * group["lr"])
        return before

    def _correct(self, chunk: CohortBatch) -> None:
        """Gradient += factor * value + offset, with the `CorrectionTerms` of the strategy."""
        for name, offset in chunk.correction.offset.items():
            parameter = self.model.get_parameter(name)
            if parameter.grad is not None:
                client_offset = torch.from_numpy(offset if name in chunk.tables else offset[0])
                factor = chunk.correction.factor[name]
                parameter.grad.add_(parameter.detach(), alpha=factor).add_(client_offset)

    def _require_grad(self, names: frozenset[str]) -> None:
        # PyTorch's optimisers skip parameters without a gradient, weight decay included.
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in names)

    def _optimizer(self) -> torch.optim.Optimizer:
        """A new optimiser; tables and dense parameters have different learning rates."""
        rows = self.model.user_rows | self.model.item_rows
        parameters = dict(self.model.named_parameters())
        tables = [value for name, value in parameters.items() if name in rows]
        dense = [value for name, value in parameters.items() if name not in rows]
        decay = self.training.weight_decay
        groups = [
            {"params": tables, "lr": self.training.learning_rate, "weight_decay": decay},
            {"params": dense, "lr": self.training.dense_learning_rate},
        ]
        groups = [group for group in groups if group["params"]]
        if self.training.optimizer == "adam":
            return torch.optim.Adam(groups)
        return torch.optim.SGD(groups)


def _backward(
    chunk: CohortBatch,
    epoch: int,
    batch: slice,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
) -> float:
    """Compute the gradients of a batch's mean loss; returns the summed loss."""
    samples = chunk.epochs[epoch]
    item_rows = chunk.touched.places[epoch]
    users = torch.from_numpy(samples.user[batch])
    items = torch.from_numpy(item_rows[batch])
    target = torch.from_numpy(samples.target[batch])
    width = items.shape[1]
    history = _history(chunk, epoch, batch, width)
    optimizer.zero_grad()
    loss = objective(users.repeat_interleave(width), items.reshape(-1), target, history).mean()
    loss.backward()
    return float(loss.item()) * len(target)


def _history(chunk: CohortBatch, epoch: int, batch: slice, width: int) -> History | None:
    """The histories for the samples of a batch; None for models without histories."""
    if chunk.reading is None:
        return None
    samples = chunk.epochs[epoch]
    user = samples.user[batch]
    context = None if samples.context is None else samples.context[batch]
    history = chunk.reading.history(epoch, np.zeros_like(user), user, context, width)
    one_client = History(**{name: tensor[0] for name, tensor in history.tensors().items()})
    return chunk.reading.for_users(one_client, user)
