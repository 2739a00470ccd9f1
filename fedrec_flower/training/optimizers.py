"""Local optimisers over many clients at once; each client steps as if it were alone."""

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.rows import add_rows
from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.work import Step, Work

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's own


class Optimizer:
    """SGD or Adam, as `torch.optim` has them, on flat tables and stacked copies.

    Args:
        training: names the optimiser, its rates and weight decay.
        work: the chunk.
        values: its values as tensors on the device, stepped in place.
    """

    def __init__(self, training: LocalTraining, work: Work, values: dict[str, Tensor]) -> None:
        self.values = values
        self._training, self._work = training, work
        # Steps taken, per client: a parameter counts those in which it learnt.
        self._count = {name: np.zeros(len(work.cohort), np.int64) for name in values}
        kept = self.values if training.optimizer == "adam" else {}
        self._first = {name: torch.zeros_like(value) for name, value in kept.items()}
        self._second = {name: torch.zeros_like(value) for name, value in kept.items()}

    def step(self, step: Step, gradients: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """Move the parameters of the clients still at work.

        Args:
            step: which clients are at work.
            gradients: by name; of a table, for each of `rows`, which may repeat.
            rows: by name of a table, the rows that the gradients are for.
        """
        setting = self._training
        for name, gradient in gradients.items():
            self._count[name][: step.active] += 1
            end = step.active
            if name in rows:
                end = int(self._work.row_offsets(name)[step.active])
            value = self.values[name][:end]
            if name not in rows:
                change = self._adam(name, gradient, step) if self._first else gradient
                value.sub_(change, alpha=setting.dense_learning_rate)
            elif self._first:
                whole = value * setting.weight_decay
                _add(whole, rows[name], gradient, 1.0)
                value.sub_(self._adam(name, whole, step), alpha=setting.learning_rate)
            else:
                if setting.weight_decay:
                    value.mul_(1 - setting.learning_rate * setting.weight_decay)
                _add(value, rows[name], gradient, -setting.learning_rate)

    def _adam(self, name: str, gradient: Tensor, step: Step) -> Tensor:
        """Kingma and Ba 2015, Algorithm 1, with each client's own count of steps."""
        rows = slice(0, len(gradient))
        first = self._first[name][rows].lerp_(gradient, 1 - _BETA1)
        second = self._second[name][rows]
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        count = self._count[name][: step.active].astype(np.float64)
        if name in self._work.tables:
            sizes = np.diff(self._work.row_offsets(name)[: step.active + 1])
            count = np.repeat(count, sizes)
        steps = torch.from_numpy(count).to(gradient.device).view(-1, *[1] * (gradient.ndim - 1))
        scale = (second / (1 - _BETA2**steps).float()).sqrt_().add_(_EPSILON)
        return first / (1 - _BETA1**steps).float() / scale


def _add(table: Tensor, rows: Tensor, values: Tensor, scale: float) -> None:
    """Add scaled values to rows of a table, in place; rows may repeat."""
    if table.device.type == "cpu":
        add_rows(table.numpy(), rows.numpy(), values.numpy(), scale)
    else:
        table.index_add_(0, rows, values, alpha=scale)
