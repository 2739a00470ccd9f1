"""Factor models with SGD, compiled: what the arithmetic costs, and nothing more.

The same steps as the other engines on the same samples, rows updated in place. Weight decay and
what a strategy adds to the gradients move every touched row at every step; here a row catches up
with what it missed when it is next used, so that a step costs its batch and not the sub-model.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.base import BilinearForm
from fedrec_flower.training import kernels as its
from fedrec_flower.training.batches import Work
from fedrec_flower.training.chunking import cut
from fedrec_flower.training.engine import Engine

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
        # Imported by whoever trains: a server that only checks the settings needs no compiler.
        from fedrec_flower.training import kernels

        names = self.model.factors()
        if names is None:
            raise ValueError(f"{type(self.model).__name__} is no model of factors")
        parameters, rates = _parameters(work, names), self._rates(work, names)
        rests = _rests(work, names)
        loss = np.zeros(len(work.cohort))
        num_steps = np.zeros(len(work.cohort), np.int64)
        for samples, places in zip(work.epochs, work.touched.places, strict=True):
            kernels.train_epoch(
                parameters, rests, rates, samples.offsets, samples.user, places, samples.target,
                num_steps, loss,
            )  # fmt: skip
        if rates.shrink != 1.0 or len(rests.item):
            of_users = np.repeat(num_steps, np.diff(work.cohort.user_offsets))
            of_items = np.repeat(num_steps, np.diff(work.touched.offsets))
            kernels.catch_up(parameters, rests, rates, of_users, of_items)
        count = sum(np.diff(samples.offsets) for samples in work.epochs)
        return np.asarray(loss / np.maximum(count, 1))

    def _rates(self, work: Work, names: BilinearForm) -> its.Rates:
        setting = self.training

        def pull(name: str) -> float:
            return work.correction.factor.get(name, 0.0)

        losses = {"bce": its.BCE, "bpr": its.BPR, "mse": its.MSE}
        sizes = [int(np.diff(samples.offsets).max()) for samples in work.epochs]
        largest = max(1, *sizes)  # a chunk may hold nothing but clients without data
        return its.Rates(
            loss=losses[setting.loss],
            table=np.float32(setting.learning_rate),
            dense=np.float32(setting.dense_learning_rate),
            shrink=1.0 - setting.learning_rate * setting.weight_decay,
            learns=(bool(names.user_bias), bool(names.global_bias), bool(names.weight)),
            batch_size=min(setting.batch_size or largest, largest),
            item_shrink=1.0 - setting.learning_rate * (setting.weight_decay + pull(names.item)),
            global_pull=np.float32(pull(names.global_bias)),
            weight_pull=np.float32(pull(names.weight)),
        )


def _parameters(work: Work, names: BilinearForm) -> its.Parameters:
    values, num_users, num_clients = work.values, work.cohort.num_users, len(work.cohort)
    item = values[names.item]

    def column(name: str, size: int) -> NDArray[np.float32]:
        return values[name].reshape(-1) if name else np.zeros(size, np.float32)

    weights = values[names.weight].reshape(num_clients, -1) if names.weight else None
    return its.Parameters(
        user=values[names.user],
        item=item,
        user_bias=column(names.user_bias, num_users),
        item_bias=column(names.item_bias, len(item)),
        global_bias=column(names.global_bias, num_clients),
        weight=np.ones((num_clients, item.shape[1]), np.float32) if weights is None else weights,
        user_steps=np.zeros(num_users, np.int64),
        item_steps=np.zeros(len(item), np.int64),
    )


def _rests(work: Work, names: BilinearForm) -> its.Rests:
    """What is added to each parameter; an array of no rows where it is left alone."""
    rest, nothing = work.correction.rest, np.zeros(0, np.float32)
    corrected = not rest.keys().isdisjoint({names.item, names.item_bias})
    num_rows, dim = work.values[names.item].shape if corrected else (0, 1)
    weight = rest.get(names.weight)
    return its.Rests(
        item=rest.get(names.item, np.zeros((num_rows, dim), np.float32)),
        item_bias=rest.get(names.item_bias, np.zeros(num_rows, np.float32)).reshape(-1),
        global_bias=rest.get(names.global_bias, nothing).reshape(-1),
        weight=nothing[:, None] if weight is None else weight.reshape(len(weight), -1),
    )
