"""The vectorized trainer: all clients of a chunk in one computation, no Python loop over clients.

Tables are flat: every client's rows follow the previous client's, so one gather serves all
clients. Other parameters and histories have a copy per client; `torch.func.vmap` maps the model's
own `forward` over them. A model is written once and works in all trainers.

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
from typing_extensions import override

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History
from fedrec_flower.training.batches import Batch, CohortBatch, steps
from fedrec_flower.training.chunking import chunk_clients
from fedrec_flower.training.config import LocalTraining, find_device
from fedrec_flower.training.losses import Objective, named
from fedrec_flower.training.optimizers import Optimizer
from fedrec_flower.training.trainer import LocalTrainer

TorchTensors = dict[str, Tensor]


class VectorizedTrainer(LocalTrainer):
    """Trains the clients of a chunk side by side; see `LocalTrainer` for the arguments."""

    def __init__(self, model: Recommender, training: LocalTraining, **rest: Any) -> None:
        super().__init__(model, training, **rest)
        self.device = find_device(training.device)
        self.objective = Objective(model, training.loss)

    @override
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Group clients of similar size, largest first, as many as the memory budget allows."""
        return chunk_clients(
            clients, self.model, self.training, self.sampler, keeps_activations=True
        )

    @override
    def fit(self, chunk: CohortBatch) -> NDArray[np.float64]:
        device = self.device
        values = {name: torch.from_numpy(value).to(device) for name, value in chunk.values.items()}
        optimizer = Optimizer(self.training, chunk, values, self.maml_step)
        total_loss = torch.zeros(len(chunk.cohort), dtype=torch.float64, device=device)
        for step in steps(chunk.epochs, self.training.batch_size):
            parts = [step] if self.maml_step is None else step.halves()
            batches = [Batch.take(chunk, part, device) for part in parts]
            rows_of = [
                {name: batch.rows(chunk, name) for name in chunk.tables} for batch in batches
            ]
            for phase, trained in enumerate(self.update_groups(step.epoch)):
                for part, batch, rows in zip(parts, batches, rows_of, strict=True):
                    losses, gradients = self._gradients(chunk, values, batch, trained)
                    take_step = optimizer.step if part is parts[-1] else optimizer.inner_step
                    take_step(part, gradients, rows)
                    if phase == 0:  # the loss before the batch's first step
                        of_samples = losses * (batch.share > 0)
                        total_loss.index_add_(0, batch.client, of_samples.double())
        if device.type != "cpu":  # on a CPU the tensors are views of the arrays
            for name, value in values.items():
                chunk.values[name][...] = value.numpy(force=True)
        num_samples = sum(np.diff(samples.offsets) for samples in chunk.epochs)
        return np.asarray(total_loss.numpy(force=True) / np.maximum(num_samples, 1))

    def _gradients(
        self, chunk: CohortBatch, values: TorchTensors, batch: Batch, trained: frozenset[str]
    ) -> tuple[Tensor, TorchTensors]:
        """Losses of a batch, (n,), and gradients by name; a table's are for `Batch.rows`."""
        inputs = {name: _inputs(chunk, name, values[name], batch) for name in values}
        leaves = {n: value.requires_grad_() for n, value in inputs.items() if n in trained}
        losses = _losses(self.objective, chunk, inputs, batch)
        gradients = torch.autograd.grad((losses * batch.share).sum(), list(leaves.values()))
        return losses.detach(), dict(zip(leaves, gradients, strict=True))


def _inputs(chunk: CohortBatch, name: str, value: Tensor, batch: Batch) -> Tensor:
    """The leaf tensor of a parameter: of a table the rows that `Batch.rows` names.

    One row per lookup, because a gradient of the whole table would cost every touched row at every
    step; for models with histories all rows of the active clients.
    """
    if name not in chunk.tables:
        return value[: batch.active].detach()
    if batch.history is None or chunk.history_only(name):
        return value.index_select(0, batch.rows(chunk, name))
    return value[: chunk.row_offsets(name)[batch.active]].detach()


def _losses(objective: Objective, chunk: CohortBatch, inputs: TorchTensors, batch: Batch) -> Tensor:
    """float32 (n,): the loss of every sample under its client's parameters."""
    if batch.history is not None:
        return _losses_with_histories(objective, chunk, inputs, batch, batch.history)
    if not chunk.needs_vmap:
        return _losses_in_order(objective, inputs, batch.target, batch.item.shape[1])
    by_client = {
        name: v.view(batch.active, -1, *v.shape[1:]) if name in chunk.tables else v
        for name, v in inputs.items()
    }

    def of_client(parameters: TorchTensors, target: Tensor) -> Tensor:
        return _losses_in_order(objective, parameters, target, batch.item.shape[1])

    losses: Tensor = vmap(of_client)(by_client, batch.target.view(batch.active, -1))
    return losses.reshape(-1)


def _losses_with_histories(
    objective: Objective,
    chunk: CohortBatch,
    inputs: TorchTensors,
    batch: Batch,
    history: History,
) -> Tensor:
    """float32 (n,): losses of models with histories; all clients share one flat table."""
    if any(map(chunk.history_only, chunk.tables)):  # the leaf has one row per history entry
        rows = torch.arange(history.item.numel(), device=history.item.device)
        history = replace(history, item=rows.view_as(history.item))
    in_dims = {name: None if name in chunk.tables else 0 for name in inputs}

    def of_client(
        parameters: TorchTensors,
        users: Tensor,
        items: Tensor,
        target: Tensor,
        history: TorchTensors,
    ) -> Tensor:
        arguments = (users, items, target, History(**history))
        losses: Tensor = functional_call(objective, named(parameters), arguments, strict=True)
        return losses

    users = batch.user.repeat_interleave(batch.item.shape[1]).view(batch.active, -1)
    items = batch.item.view(batch.active, -1)
    target = batch.target.view(batch.active, -1)
    of_clients = vmap(of_client, in_dims=(in_dims, 0, 0, 0, 0))
    losses: Tensor = of_clients(inputs, users, items, target, history.tensors())
    return losses.reshape(-1)


def _losses_in_order(
    objective: Objective, parameters: TorchTensors, target: Tensor, width: int
) -> Tensor:
    """Losses of samples whose table rows are already gathered, in the samples' order.

    Args:
        objective: the model's.
        parameters: of a table the rows that `Batch.rows` names, of other parameters the value. A
            user table may have a single row, for samples of one user.
        target: float32 (n,).
        width: items per sample.

    Returns:
        float32 (n,).
    """
    num_pairs = len(target) * width
    gathered = dict(parameters)
    for name in objective.model.user_rows & parameters.keys():
        rows = parameters[name]
        per_pair = rows if len(rows) == 1 else rows.repeat_interleave(width, 0)
        gathered[name] = per_pair.expand(num_pairs, *rows.shape[1:])
    places = torch.arange(num_pairs, device=target.device)
    with _IdentityLookups(places):
        arguments = (places, places, target, None)
        losses: Tensor = functional_call(objective, named(gathered), arguments, strict=True)
    return losses


class _IdentityLookups(TorchFunctionMode):
    """Skips embedding lookups of rows that are already in order.

    Args:
        places: the lookup indices 0, 1, ..., one per row of the gathered tables.
    """

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Return the table for `embedding(places, table)`; call any other function as usual."""
        del types
        if func is functional.embedding and args[0] is self._places:
            return args[1]
        return func(*args, **(kwargs or {}))
