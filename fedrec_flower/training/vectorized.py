"""All clients of a chunk in one computation: no Python per client, the same mathematics.

Tables are laid out flat, every client's rows after the last one's, so one gather serves all
clients. Other parameters have a copy per client, and so have histories: `torch.func.vmap` hands
them to the model's own `forward`. A model is written once and trains here too.

Source of the technique: Ro, Suresh and Wu 2021, FedJAX, section 3 (`vmap` over clients).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History
from fedrec_flower.training.batches import Batch, Work, steps
from fedrec_flower.training.chunking import cut
from fedrec_flower.training.config import LocalTraining, find_device
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.losses import Objective, named
from fedrec_flower.training.optimizers import Optimizer

Tensors = dict[str, Tensor]


class VectorizedEngine(Engine):
    """Trains the clients of a chunk side by side; see `Engine` for the arguments."""

    def __init__(self, model: Recommender, training: LocalTraining, **rest: Any) -> None:
        super().__init__(model, training, **rest)
        self.device = find_device(training.device)
        self.objective = Objective(model, training.loss)

    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Clients of similar size together, largest first, as many as the memory allows."""
        return cut(clients, self.model, self.training, self.sampler, activates=True)

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`; clients come largest first."""
        device = self.device
        values = {name: torch.from_numpy(value).to(device) for name, value in work.values.items()}
        optimizer = Optimizer(self.training, work, values, self.look_ahead)
        total = torch.zeros(len(work.cohort), dtype=torch.float64, device=device)
        for step in steps(work.epochs, self.training.batch_size):
            parts = [step] if self.look_ahead is None else step.halves()
            batches = [Batch.take(work, part, device) for part in parts]
            every = [{name: batch.rows(work, name) for name in work.tables} for batch in batches]
            for phase, learning in enumerate(self.phases(step.epoch)):
                for part, batch, rows in zip(parts, batches, every, strict=True):
                    losses, gradients = self._slopes(work, values, batch, learning)
                    move = optimizer.step if part is parts[-1] else optimizer.go_ahead
                    move(part, gradients, rows)
                    if phase == 0:  # the loss as the batch was met
                        met = losses * (batch.share > 0)
                        total.index_add_(0, batch.client, met.double())
        if device.type != "cpu":  # on a CPU the tensors are views of the arrays
            for name, value in values.items():
                work.values[name][...] = value.numpy(force=True)
        count = sum(np.diff(samples.offsets) for samples in work.epochs)
        return np.asarray(total.numpy(force=True) / np.maximum(count, 1))

    def _slopes(
        self, work: Work, values: Tensors, batch: Batch, learning: frozenset[str]
    ) -> tuple[Tensor, Tensors]:
        """Losses of a batch, (n,), and gradients of what learns; of tables, of the rows in use."""
        used = {name: _used(work, name, values[name], batch) for name in values}
        leaves = {n: value.requires_grad_() for n, value in used.items() if n in learning}
        losses = _losses(self.objective, work, used, batch)
        gradients = torch.autograd.grad((losses * batch.share).sum(), list(leaves.values()))
        return losses.detach(), dict(zip(leaves, gradients, strict=True))


def _used(work: Work, name: str, value: Tensor, batch: Batch) -> Tensor:
    """What the step reads and differentiates by: of a table the rows that `Batch.rows` names.

    One for each that is looked up, for a gradient of the whole table would cost every touched row
    at every step; or else all of them.
    """
    if name not in work.tables:
        return value[: batch.active].detach()
    if batch.history is None or work.only_read(name):
        return value.index_select(0, batch.rows(work, name))
    return value[: work.row_offsets(name)[batch.active]].detach()


def _losses(objective: Objective, work: Work, used: Tensors, batch: Batch) -> Tensor:
    """float32 (n,): every client's samples under its own parameters."""
    if batch.history is not None:
        return _read(objective, work, used, batch, batch.history)
    if not work.apart:
        return _call(objective, used, batch.target, batch.item.shape[1])
    rectangle = {
        name: v.view(batch.active, -1, *v.shape[1:]) if name in work.tables else v
        for name, v in used.items()
    }

    def one_client(own: Tensors, target: Tensor) -> Tensor:
        return _call(objective, own, target, batch.item.shape[1])

    losses: Tensor = vmap(one_client)(rectangle, batch.target.view(batch.active, -1))
    return losses.reshape(-1)


def _read(
    objective: Objective, work: Work, used: Tensors, batch: Batch, history: History
) -> Tensor:
    """Losses, for models that read: tables are all clients' in one, rows say whose."""
    if any(map(work.only_read, work.tables)):  # whose rows then stand in order
        rows = torch.arange(history.item.numel(), device=history.item.device)
        history = replace(history, item=rows.view_as(history.item))
    one_for_all = {name: None if name in work.tables else 0 for name in used}

    def one_client(
        own: Tensors, users: Tensor, items: Tensor, target: Tensor, read: Tensors
    ) -> Tensor:
        arguments = (users, items, target, History(**read))
        losses: Tensor = functional_call(objective, named(own), arguments, strict=True)
        return losses

    pairs = (batch.user.repeat_interleave(batch.item.shape[1]), batch.item, batch.target)
    users, items, target = (column.view(batch.active, -1) for column in pairs)
    each = vmap(one_client, in_dims=(one_for_all, 0, 0, 0, 0))
    losses: Tensor = each(used, users, items, target, history.tensors())
    return losses.reshape(-1)


def _call(objective: Objective, parameters: Tensors, target: Tensor, width: int) -> Tensor:
    """Losses of samples whose rows already stand in their order, or are one user's.

    Args:
        objective: the model's.
        parameters: of a table the rows that `Batch.rows` names, of anything else the value.
        target: float32 (n,).
        width: pairs in a sample.
    """
    num_pairs, in_order = len(target) * width, dict(parameters)
    for name in objective.model.user_rows & parameters.keys():
        own = parameters[name]
        spread = own if len(own) == 1 else own.repeat_interleave(width, 0)
        in_order[name] = spread.expand(num_pairs, *own.shape[1:])
    rows = torch.arange(num_pairs, device=target.device)
    with _RowsInOrder(rows):
        arguments = (rows, rows, target, None)
        losses: Tensor = functional_call(objective, named(in_order), arguments, strict=True)
    return losses


class _RowsInOrder(TorchFunctionMode):
    """Looking up rows that already stand in order is the identity: it is left out.

    Args:
        rows: what tables are looked up by; they have a row per pair.
    """

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self._rows = rows

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer `embedding(rows, table)` with the table; anything else as ever."""
        del types
        if func is functional.embedding and args[0] is self._rows:
            return args[1]
        return func(*args, **(kwargs or {}))
