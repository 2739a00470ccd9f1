"""All clients of a chunk in one computation: no Python per client, the same mathematics.

Tables are laid out flat, every client's rows after the last one's, so one gather serves all
clients. Other parameters have a copy per client, which `torch.func.vmap` hands to the model's own
`forward`: a model is written once and trains here too.

Source of the technique: Ro, Suresh and Wu 2021, FedJAX, section 3 (`vmap` over clients).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from fedrec_flower.models.base import Recommender
from fedrec_flower.prepared import ClientData
from fedrec_flower.training.device import find_device
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.losses import LOSSES
from fedrec_flower.training.memory import cut
from fedrec_flower.training.optimizers import Optimizer
from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.work import Step, Work, steps

Tensors = dict[str, Tensor]


class VectorizedEngine(Engine):
    """Trains the clients of a chunk side by side; see `Engine` for the arguments."""

    def __init__(self, model: Recommender, training: LocalTraining, **rest: Any) -> None:
        super().__init__(model, training, **rest)
        self.device = find_device(training.device)

    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """Clients of similar size together, largest first, as many as the memory allows."""
        return cut(clients, self.model, self.training, self.sampler, activates=True)

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`; clients come largest first."""
        device = self.device
        values = {name: torch.from_numpy(value).to(device) for name, value in work.values.items()}
        optimizer = Optimizer(self.training, work, values)
        loss_of = LOSSES[self.training.loss]
        total = torch.zeros(len(work.cohort), dtype=torch.float64, device=device)
        for step in steps(work.epochs, self.training.batch_size):
            batch = _Batch.take(work, step, device)
            leaves = {name: _leaf(work, name, values[name], batch) for name in values}
            losses = loss_of(_scores(work, leaves, batch), batch.target) * batch.share
            gradients = torch.autograd.grad(losses.sum(), list(leaves.values()))
            rows = {name: batch.rows(work, name) for name in work.tables}
            optimizer.step(step, dict(zip(leaves, gradients, strict=True)), rows)
            total.index_add_(0, batch.client, losses.detach().double() * batch.size)
        if device.type != "cpu":  # on a CPU the tensors are views of the arrays
            for name, value in values.items():
                work.values[name][...] = value.numpy(force=True)
        count = sum(np.diff(samples.offsets) for samples in work.epochs)
        return np.asarray(total.numpy(force=True) / np.maximum(count, 1))


@dataclass(frozen=True, slots=True)
class _Batch:
    """The samples of one step, n in all; padded to a rectangle if parameters differ by client.

    Attributes:
        active: clients at work.
        client: int64 (n,), whose sample it is.
        user: int64, row of the flat user tables: one per sample, (n,), or in a rectangle of
            clients with a single user each, one per client, (active,).
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
        """The rows of a table that the samples use, one by one: `user`, or all of `item`."""
        return self.user if table in work.model.user_rows else self.item.reshape(-1)

    @classmethod
    def take(cls, work: Work, step: Step, device: torch.device) -> "_Batch":
        samples, places = work.epochs[step.epoch], work.touched.places[step.epoch]
        column, length = np.arange(step.size.max()), step.size
        real = column < step.size[:, None]
        if work.dense:
            # A pad repeats the batch's first sample, with no share in the mean.
            chosen = (step.first[:, None] + np.where(real, column, 0)).reshape(-1)
            real, length = real.reshape(-1), np.full(step.active, len(column))
        else:
            chosen = (step.first[:, None] + column)[real]
            real = np.ones(len(chosen), np.bool_)
        client = np.repeat(np.arange(step.active), length)
        size = step.size[client].astype(np.float64)
        one_user_each = work.dense and work.cohort.num_users == len(work.cohort)
        arrays = {
            "client": client,
            "user": samples.user[step.first if one_user_each else chosen],
            "item": places[chosen],
            "target": samples.target[chosen],
            "size": size,
            "share": (real / size).astype(np.float32),
        }
        tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
        return cls(active=step.active, **tensors)


def _leaf(work: Work, name: str, value: Tensor, batch: _Batch) -> Tensor:
    """What the step differentiates by: of a table only the rows in use, one per sample.

    A gradient of the whole table would cost every touched row at every step.
    """
    if name in work.tables:
        used = value.index_select(0, batch.rows(work, name))
    else:
        used = value[: batch.active].detach()
    return used.requires_grad_()


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
    """Score samples whose rows already stand in their order, or are one user's."""
    in_order = dict(parameters)
    for name in work.model.user_rows & parameters.keys():
        own = parameters[name]
        spread = own if len(own) == 1 else own.repeat_interleave(width, 0)
        in_order[name] = spread.expand(num_samples * width, *own.shape[1:])
    places = torch.arange(num_samples * width, device=next(iter(parameters.values())).device)
    with _RowsInOrder(places):
        scores: Tensor = functional_call(work.model, in_order, (places, places), strict=True)
    return scores.view(num_samples, width)


class _RowsInOrder(TorchFunctionMode):
    """Looking up rows that already stand in order is the identity: it is left out."""

    def __init__(self, places: Tensor) -> None:
        super().__init__()
        self._places = places

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Answer `embedding(places, table)` with the table; anything else as ever."""
        del types
        if func is functional.embedding and args[0] is self._places:
            return args[1]
        return func(*args, **(kwargs or {}))
