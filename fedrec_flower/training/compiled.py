"""Factor models with SGD, compiled: what the arithmetic costs, and nothing more.

The same steps as the other engines on the same samples, rows updated in place. Weight decay
shrinks every touched row at every step; here a row catches up with what it missed when it is next
used, so that a step costs its batch and not the sub-model.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.models.base import Factors
from fedrec_flower.prepared import ClientData
from fedrec_flower.training.engine import Engine
from fedrec_flower.training.memory import cut
from fedrec_flower.training.work import Work

# The kernels are imported by whoever trains: a server that only checks the settings need not load
# a compiler.
if TYPE_CHECKING:
    from fedrec_flower.training import kernels

# The loop takes one client after another: more of them at once only take memory.
_ENOUGH_MB = 64


class CompiledEngine(Engine):
    """Trains the clients of a chunk in one compiled loop, if the model is one of factors."""

    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        """As many clients as the memory allows, and as bring anything."""
        return cut(
            clients, self.model, self.training, self.sampler, activates=False, enough_mb=_ENOUGH_MB
        )

    def fit(self, work: Work) -> NDArray[np.float64]:
        """See `Engine.fit`."""
        from fedrec_flower.training import kernels

        names = self.model.factors()
        if names is None:
            raise ValueError(f"{type(self.model).__name__} is no model of factors")
        parameters, rates = _parameters(work, names), self._rates(work, names)
        loss = np.zeros(len(work.cohort))
        num_steps = np.zeros(len(work.cohort), np.int64)
        for samples, places in zip(work.epochs, work.touched.places, strict=True):
            kernels.train_epoch(
                parameters, rates, samples.offsets, samples.user, places, samples.target,
                num_steps, loss,
            )  # fmt: skip
        if rates.shrink != 1.0:
            of_users = np.repeat(num_steps, np.diff(work.cohort.user_offsets))
            of_items = np.repeat(num_steps, np.diff(work.touched.offsets))
            kernels.catch_up(parameters, rates.shrink, of_users, of_items)
        count = sum(np.diff(samples.offsets) for samples in work.epochs)
        return np.asarray(loss / np.maximum(count, 1))

    def _rates(self, work: Work, names: Factors) -> "kernels.Rates":
        from fedrec_flower.training import kernels

        setting = self.training
        losses = {"bce": kernels.BCE, "bpr": kernels.BPR, "mse": kernels.MSE}
        sizes = [int(np.diff(samples.offsets).max()) for samples in work.epochs]
        largest = max(1, *sizes)  # a chunk may hold nothing but clients without data
        return kernels.Rates(
            loss=losses[setting.loss],
            table=np.float32(setting.learning_rate),
            dense=np.float32(setting.dense_learning_rate),
            shrink=1.0 - setting.learning_rate * setting.weight_decay,
            learns=(bool(names.user_bias), bool(names.global_bias), bool(names.weight)),
            batch_size=min(setting.batch_size or largest, largest),
        )


def _parameters(work: Work, names: Factors) -> "kernels.Parameters":
    from fedrec_flower.training import kernels

    values, num_users, num_clients = work.values, work.cohort.num_users, len(work.cohort)
    item = values[names.item]

    def column(name: str, size: int) -> NDArray[np.float32]:
        return values[name].reshape(-1) if name else np.zeros(size, np.float32)

    weights = values[names.weight].reshape(num_clients, -1) if names.weight else None
    return kernels.Parameters(
        user=values[names.user],
        item=item,
        user_bias=column(names.user_bias, num_users),
        item_bias=column(names.item_bias, len(item)),
        global_bias=column(names.global_bias, num_clients),
        weight=np.ones((num_clients, item.shape[1]), np.float32) if weights is None else weights,
        user_steps=np.zeros(num_users, np.int64),
        item_steps=np.zeros(len(item), np.int64),
    )
