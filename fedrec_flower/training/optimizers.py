"""SGD and Adam over many clients at once; each client steps as if it were alone."""

import numpy as np
import torch
from torch import Tensor

from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.training.batches import CohortBatch, Step
from fedrec_flower.training.config import LocalTraining

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # the defaults of torch.optim.Adam


class Optimizer:
    """SGD or Adam, as in `torch.optim`, on flat tables and on parameters with a copy per client.

    Args:
        training: the optimiser, its learning rates and weight decay.
        chunk: the clients.
        values: their parameters as tensors on the device, by name, changed in place. Tables have
            shape (num_rows, ...), other parameters (num_clients, ...).
        maml_step: see `LocalTrainer`.
    """

    def __init__(
        self,
        training: LocalTraining,
        chunk: CohortBatch,
        values: dict[str, Tensor],
        maml_step: float | None,
    ) -> None:
        self.values = values
        self._training = training
        self._chunk = chunk
        self._uses_adam = training.optimizer == "adam"
        # int64 (num_clients,) by parameter: a parameter counts the steps that update it.
        self._count = {name: np.zeros(len(chunk.cohort), np.int64) for name in values}
        with_moments = values if self._uses_adam else {}
        self._first = {name: torch.zeros_like(value) for name, value in with_moments.items()}
        self._second = {name: torch.zeros_like(value) for name, value in with_moments.items()}
        self._offset = {
            name: torch.from_numpy(offset).to(values[name].device)
            for name, offset in chunk.correction.offset.items()
        }
        self._look_ahead = 0.0 if maml_step is None else maml_step
        self._before_inner_step: dict[str, Tensor] = {}

    def inner_step(
        self, active: Step, gradients: dict[str, Tensor], rows: dict[str, Tensor]
    ) -> None:
        """Take a plain SGD step that the next `step` undoes first. Arguments: see `step`."""
        setting = self._training
        for name, gradient in gradients.items():
            value = self._active(self.values[name], name, active)
            self._before_inner_step[name] = value.clone()
            if name in rows:
                _add_at(value, rows[name], gradient, -self._look_ahead * setting.learning_rate)
            else:
                value.sub_(gradient, alpha=self._look_ahead * setting.dense_learning_rate)

    def step(self, active: Step, gradients: dict[str, Tensor], rows: dict[str, Tensor]) -> None:
        """Move the parameters of the active clients.

        Args:
            active: the clients that have samples in this step.
            gradients: by name. A table's gradient has one row for each of `rows`, (n, ...);
                another parameter's has shape (active, ...).
            rows: by name of a table int64 (n,), the rows of the gradient; may repeat.
        """
        for name, start in self._before_inner_step.items():
            self.values[name][: len(start)].copy_(start)
        self._before_inner_step.clear()
        for name, gradient in gradients.items():
            self._count[name][: active.active] += 1
            if name not in rows:
                self._step_dense(name, active, gradient)
            elif self._uses_adam:
                self._step_table_by_adam(name, active, gradient, rows[name])
            else:
                self._step_table_by_sgd(name, active, gradient, rows[name])

    def _step_dense(self, name: str, active: Step, gradient: Tensor) -> None:
        """Value -= rate * (gradient + correction); Adam normalises the term in parentheses."""
        value = self._active(self.values[name], name, active)
        change = self._corrected(name, gradient, value)
        if self._uses_adam:
            change = self._adam_direction(name, change, active)
        value.sub_(change, alpha=self._training.dense_learning_rate)

    def _step_table_by_adam(self, name: str, active: Step, gradient: Tensor, rows: Tensor) -> None:
        """Value -= rate * Adam(gradient + decay * value + correction), on every touched row."""
        value = self._active(self.values[name], name, active)
        whole = self._corrected(name, value * self._training.weight_decay, value)
        _add_at(whole, rows, gradient, 1.0)
        value.sub_(self._adam_direction(name, whole, active), alpha=self._training.learning_rate)

    def _step_table_by_sgd(self, name: str, active: Step, gradient: Tensor, rows: Tensor) -> None:
        """Value -= rate * (gradient + decay * value + correction).

        The gradient is non-zero on `rows` only and is added there; the rest is added to every
        touched row.
        """
        rate = self._training.learning_rate
        decay = self._training.weight_decay
        value = self._active(self.values[name], name, active)
        if name in self._offset:
            value.sub_(self._corrected(name, value * decay, value), alpha=rate)
        elif decay:
            value.mul_(1 - rate * decay)
        _add_at(value, rows, gradient, -rate)

    def _active(self, array: Tensor, name: str, active: Step) -> Tensor:
        """The leading part of a parameter's array that belongs to the active clients: a view."""
        if name in self._chunk.tables:
            return array[: int(self._chunk.row_offsets(name)[active.active])]
        return array[: active.active]

    def _corrected(self, name: str, gradient: Tensor, value: Tensor) -> Tensor:
        """Gradient + factor * value + offset, with the `CorrectionTerms` of the strategy."""
        if name not in self._offset:
            return gradient
        factor = self._chunk.correction.factor[name]
        return gradient.add(value, alpha=factor).add_(self._offset[name][: len(value)])

    def _adam_direction(self, name: str, gradient: Tensor, active: Step) -> Tensor:
        """Adam's bias-corrected first moment over the root of the second, like `gradient`.

        Each client has its own count of steps. Source: Kingma and Ba 2015, Algorithm 1.
        """
        first = self._active(self._first[name], name, active)
        second = self._active(self._second[name], name, active)
        first.lerp_(gradient, 1 - _BETA1)
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        count = self._count[name][: active.active].astype(np.float64)
        if name in self._chunk.tables:
            sizes = np.diff(self._chunk.row_offsets(name)[: active.active + 1])
            count = np.repeat(count, sizes)
        steps = torch.from_numpy(count).to(gradient.device).view(-1, *[1] * (gradient.ndim - 1))
        scale = (second / (1 - _BETA2**steps).float()).sqrt_().add_(_EPSILON)
        return first / (1 - _BETA1**steps).float() / scale


def _add_at(table: Tensor, rows: Tensor, values: Tensor, scale: float) -> None:
    """Add scaled values to rows of a table, in place; rows may repeat."""
    if table.device.type == "cpu":
        scatter_add_rows(table.numpy(), rows.numpy(), values.numpy(), scale)
    else:
        table.index_add_(0, rows, values, alpha=scale)
