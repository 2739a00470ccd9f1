"""Local optimisers over many clients at once; each client steps as if it were alone."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fedrec_flower.training.settings import LocalTraining
from fedrec_flower.training.work import Step, Work

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's own


class Optimizer:
    """SGD or Adam, as `torch.optim` has them, on flat tables and stacked copies.

    Args:
        training: names the optimiser, its rates and weight decay.
        work: the chunk.
        values: the parameters that will be stepped.
    """

    def __init__(self, training: LocalTraining, work: Work, values: dict[str, Tensor]) -> None:
        self._training, self._work, self._tables = training, work, set(work.tables)
        self._count = np.zeros(len(work.cohort), np.int64)  # steps taken, per client
        adam = training.optimizer == "adam"
        self._first = {n: torch.zeros_like(v) for n, v in values.items()} if adam else {}
        self._second = {n: torch.zeros_like(v) for n, v in values.items()} if adam else {}

    def step(self, active: dict[str, Tensor], gradients: dict[str, Tensor], step: Step) -> None:
        """Move the parameters of the clients still at work, in place.

        Args:
            active: their rows or copies.
            gradients: of the same names and shapes.
            step: which clients are at work.
        """
        self._count[: step.active] += 1
        for name, value in active.items():
            gradient, rate = gradients[name], self._training.dense_learning_rate
            if name in self._tables:
                rate = self._training.learning_rate
                if self._training.weight_decay:
                    gradient = gradient + self._training.weight_decay * value
            if self._first:
                gradient = self._adam(name, gradient, step)
            value.sub_(gradient, alpha=rate)

    def _adam(self, name: str, gradient: Tensor, step: Step) -> Tensor:
        """Kingma and Ba 2015, Algorithm 1, with each client's own count of steps."""
        rows = slice(0, len(gradient))
        first = self._first[name][rows].lerp_(gradient, 1 - _BETA1)
        second = self._second[name][rows]
        second.mul_(_BETA2).addcmul_(gradient, gradient, value=1 - _BETA2)
        shape = (-1, *[1] * (gradient.ndim - 1))
        count = torch.from_numpy(self._per_row(name, step)).view(shape)
        scale = (second / (1 - _BETA2**count).float()).sqrt_().add_(_EPSILON)
        return first / (1 - _BETA1**count).float() / scale

    def _per_row(self, name: str, step: Step) -> NDArray[np.float64]:
        count = self._count[: step.active].astype(np.float64)
        if name not in self._tables:
            return count
        return np.repeat(count, np.diff(self._work.row_offsets(name)[: step.active + 1]))
