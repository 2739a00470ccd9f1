"""All clients of a chunk in one computation: no Python per client, the same mathematics.

Tables are laid out flat, every client's rows after the last one's, so one gather serves all
clients. Other parameters have a copy per client, and so have histories: `torch.func.vmap` hands
them to the model's own `forward`. A model is written once and trains here too.

Source of the technique: Ro, Suresh and Wu 2021, FedJAX, section 3 (`vmap` over clients).
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History
from fedrec_flower.prepared import ClientData
from fedrec_flower.training.batch import Batch
from fedrec_flower.training.device import find_device
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.memory import cut
from fedrec_flower.training.objective import Objective, named
from fedrec_flower.training.optimizers import Optimizer
from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.work import Work, steps

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
    """What the step reads and differentiates by: of a table only the rows in use, one per sample.

    A gradient of the whole table would cost every touched row at every step.
    """
    if name in work.tables:
        return value.index_select(0, batch.rows(work, name))
    return value[: batch.active].detach()


def _losses(objective: Objective, work: Work, used: Tensors, batch: Batch) -> Tensor:
    """float32 (n,): every client's samples under its own parameters."""
    if not work.apart:
        return _call(objective, used, batch.target, batch.item.shape[1])
    rectangle = {
        name: v.view(batch.active, -1, *v.shape[1:]) if name in work.tables else v
        for name, v in used.items()
    }
    history = batch.history.tensors() if batch.history else {}
    target, owner = (column.view(batch.active, -1) for column in (batch.target, batch.owner))

    def one_client(own: Tensors, target: Tensor, owner: Tensor, read: Tensors) -> Tensor:
        reading = (History(**read), owner) if read else None
        return _call(objective, own, target, batch.item.shape[1], reading)

    losses: Tensor = vmap(one_client)(rectangle, target, owner, history)
    return losses.reshape(-1)


def _call(
    objective: Objective,
    parameters: Tensors,
    target: Tensor,
    width: int,
    reading: tuple[History, Tensor] | None = None,
) -> Tensor:
    """Losses of samples whose rows already stand in their order, or are one user's.

    Args:
        objective: the model's.
        parameters: of a table the rows that `Batch.rows` names, of anything else the value.
        target: float32 (n,).
        width: pairs in a sample.
        reading: what is read, and the user of each sample, (n,), for models that read.
    """
    num_pairs, in_order = len(target) * width, dict(parameters)
    for name in objective.model.user_rows & parameters.keys():
        own = parameters[name]
        spread = own if len(own) == 1 else own.repeat_interleave(width, 0)
        in_order[name] = spread.expand(num_pairs, *own.shape[1:])
    users = items = torch.arange(num_pairs, device=target.device)
    history = None
    if reading is not None:
        history, owner = reading
        users = owner.repeat_interleave(width)
    with _RowsInOrder(users, items, history):
        arguments = (users, items, target, history)
        losses: Tensor = functional_call(objective, named(in_order), arguments, strict=True)
    return losses


class _RowsInOrder(TorchFunctionMode):
    """Looking up rows that already stand in order is the identity: it is left out.

    Args:
        users: what user tables are looked up by; these have a row per pair.
        items: what item tables are looked up by for pairs.
        history: what they are looked up by for histories. A table that is looked up for both has
            the rows of the pairs first.
    """

    def __init__(self, users: Tensor, items: Tensor, history: History | None) -> None:
        super().__init__()
        entries = items[:0] if history is None else history.item
        self._indices = (users, items, entries)
        self._sizes = [len(items), len(entries)]
        self._blocks: dict[int, tuple[Tensor, ...]] = {}  # one split per table: one gradient

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer `embedding(index, table)` with the rows asked for; anything else as ever."""
        del types
        if func is functional.embedding:
            for index in self._indices:
                if args[0] is index:
                    return self._rows(args[1], index)
        return func(*args, **(kwargs or {}))

    def _rows(self, table: Tensor, index: Tensor) -> Tensor:
        if len(table) == len(index):
            return table
        if id(table) not in self._blocks:
            self._blocks[id(table)] = torch.split(table, self._sizes)
        return self._blocks[id(table)][index is self._indices[-1]]
