"""Local optimisers over many clients at once; each client steps as if it were alone."""

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.core.scatter import add_rows
from fedrec_flower.training.batches import Step, Work
from fedrec_flower.training.config import LocalTraining

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's own


class Optimizer:
    """SGD or Adam, as `torch.optim` has them, on flat tables and stacked copies.

    Args:
        training: names the optimiser, its rates and weight decay.
        work: the chunk.
        values: its values as tensors on the device, stepped in place.
        look_ahead: see `training.Engine`.
    """

    def __init__(
        self,
        training: LocalTraining,
        work: Work,
        values: dict[str, Tensor],
        look_ahead: float | None,
    ) -> None:
        self.values = values
        self._training, self._work = training, work
        # Steps taken, per client: a parameter counts those in which it learnt.
        self._count = {name: np.zeros(len(work.cohort), np.int64) for name in values}
        kept = self.values if training.optimizer == "adam" else {}
        self._first = {name: torch.zeros_like(value) for name, value in kept.items()}
        self._second = {name: torch.zeros_like(value) for name, value in kept.items()}
        self._rest = {
            name: torch.from_numpy(rest).to(values[name].device)
            for name, rest in work.correction.rest.items()
        }
        self._look_ahead = look_ahead or 0.0
        self._began: dict[str, Tensor] = {}

    def go_ahead(self, step: Step, gradients: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """Descend plainly; the next `step` goes back first. Arguments: see `step`."""
        setting = self._training
        for name, gradient in gradients.items():
            value = self.values[name][: self._end(name, step)]
            self._began[name] = value.clone()
            if name in rows:
                _add(value, rows[name], gradient, -self._look_ahead * setting.learning_rate)
            else:
                value.sub_(gradient, alpha=self._look_ahead * setting.dense_learning_rate)

    def step(self, step: Step, gradients: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """Move the parameters of the clients still at work.

        Args:
            step: which clients are at work.
            gradients: by name; of a table, for each of `rows`, which may repeat.
            rows: by name of a table, the rows that the gradients are for.
        """
        setting = self._training
        for name, began in self._began.items():
            self.values[name][: len(began)].copy_(began)
        self._began.clear()
        for name, gradient in gradients.items():
            self._count[name][: step.active] += 1
            value = self.values[name][: self._end(name, step)]
            if name not in rows:
                whole = self._corrected(name, value, gradient)
                change = self._adam(name, whole, step) if self._first else whole
                value.sub_(change, alpha=setting.dense_learning_rate)
            elif self._first:
                whole = self._corrected(name, value, value * setting.weight_decay)
                _add(whole, rows[name], gradient, 1.0)
                value.sub_(self._adam(name, whole, step), alpha=setting.learning_rate)
            else:
                if name in self._rest:
                    whole = self._corrected(name, value, value * setting.weight_decay)
                    value.sub_(whole, alpha=setting.learning_rate)
                elif setting.weight_decay:
                    value.mul_(1 - setting.learning_rate * setting.weight_decay)
                _add(value, rows[name], gradient, -setting.learning_rate)

    def _end(self, name: str, step: Step) -> int:
        """Where the part of the clients still at work ends."""
        if name in self._work.tables:
            return int(self._work.row_offsets(name)[step.active])
        return step.active

    def _corrected(self, name: str, value: Tensor, gradient: Tensor) -> Tensor:
        """The gradient with what corrects it; see `Correction`."""
        if name not in self._rest:
            return gradient
        rest = self._rest[name][: len(value)]
        return gradient.add(value, alpha=self._work.correction.factor[name]).add_(rest)

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
