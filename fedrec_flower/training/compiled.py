"""The compiled trainer: SGD for factor models in one compiled loop.

It takes the same steps as the other trainers on the same samples and changes rows in place.
Weight decay and the terms of a strategy move every touched row at every step; here a row receives
them for all missed steps when it is next used, so that a step costs as much as its batch and not
as the sub-model.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.abilities import BilinearForm, bilinear_form
from fedrec_flower.training import kernel_arguments as args
from fedrec_flower.training.batches import CohortBatch
from fedrec_flower.training.chunking import chunk_clients
from fedrec_flower.training.trainer import LocalTrainer

# The loop takes one client after another: more clients per chunk cost memory and save no time.
_MAX_USEFUL_MB = 64


class CompiledTrainer(LocalTrainer):
    """Trains the clients of a chunk in one compiled loop; for models with `factors`."""

    @override
    def chunks(self, clients: Sequence[ClientData]) -> Iterator[Sequence[ClientData]]:
        return chunk_clients(
            clients,
            self.model,
            self.training,
            self.sampler,
            keeps_activations=False,
            max_useful_mb=_MAX_USEFUL_MB,
        )

    @override
    def fit(self, chunk: CohortBatch) -> NDArray[np.float64]:
        # Imported here: a server that only checks the settings needs no compiler.
        from fedrec_flower.training import kernels

        names = bilinear_form(self.model)
        if names is None:
            raise ValueError(f"{type(self.model).__name__} is no model of factors")
        parameters = _parameters(chunk, names)
        rates = self._rates(chunk, names)
        offsets = _offsets(chunk, names)
        loss = np.zeros(len(chunk.cohort))
        num_steps = np.zeros(len(chunk.cohort), np.int64)
        for samples, places in zip(chunk.epochs, chunk.touched.places, strict=True):
            kernels.train_epoch(
                parameters, offsets, rates, samples.offsets, samples.user, places, samples.target,
                num_steps, loss,
            )  # fmt: skip
        if rates.shrink != 1.0 or len(offsets.item):
            user_steps = np.repeat(num_steps, np.diff(chunk.cohort.user_offsets))
            item_steps = np.repeat(num_steps, np.diff(chunk.touched.offsets))
            kernels.catch_up(parameters, offsets, rates, user_steps, item_steps)
        num_samples = sum(np.diff(samples.offsets) for samples in chunk.epochs)
        return np.asarray(loss / np.maximum(num_samples, 1))

    def _rates(self, chunk: CohortBatch, names: BilinearForm) -> args.Rates:
        setting = self.training

        def factor(name: str) -> float:
            return chunk.correction.factor.get(name, 0.0)

        losses = {"bce": args.BCE, "bpr": args.BPR, "mse": args.MSE}
        sizes = [int(np.diff(samples.offsets).max()) for samples in chunk.epochs]
        largest = max(1, *sizes)  # all clients of a chunk may be without data
        batch_size = largest if setting.batch_size is None else min(setting.batch_size, largest)
        item_decay = setting.weight_decay + factor(names.item)
        return args.Rates(
            loss=losses[setting.loss],
            table=np.float32(setting.learning_rate),
            dense=np.float32(setting.dense_learning_rate),
            shrink=1.0 - setting.learning_rate * setting.weight_decay,
            learns=(bool(names.user_bias), bool(names.global_bias), bool(names.weight)),
            batch_size=batch_size,
            item_shrink=1.0 - setting.learning_rate * item_decay,
            global_pull=np.float32(factor(names.global_bias)),
            weight_pull=np.float32(factor(names.weight)),
        )


def _parameters(chunk: CohortBatch, names: BilinearForm) -> args.Parameters:
    values = chunk.values
    num_users = chunk.cohort.num_users
    num_clients = len(chunk.cohort)
    item = values[names.item]

    def column(name: str, size: int) -> NDArray[np.float32]:
        return values[name].reshape(-1) if name else np.zeros(size, np.float32)

    if names.weight:
        weight = values[names.weight].reshape(num_clients, -1)
    else:
        weight = np.ones((num_clients, item.shape[1]), np.float32)
    return args.Parameters(
        user=values[names.user],
        item=item,
        user_bias=column(names.user_bias, num_users),
        item_bias=column(names.item_bias, len(item)),
        global_bias=column(names.global_bias, num_clients),
        weight=weight,
        user_steps=np.zeros(num_users, np.int64),
        item_steps=np.zeros(len(item), np.int64),
    )


def _offsets(chunk: CohortBatch, names: BilinearForm) -> args.Offsets:
    """`CorrectionTerms.offset` of each parameter; an array of no rows for other parameters."""
    offset = chunk.correction.offset
    empty = np.zeros(0, np.float32)
    corrects_items = not offset.keys().isdisjoint({names.item, names.item_bias})
    num_rows, dim = chunk.values[names.item].shape if corrects_items else (0, 1)
    weight = offset.get(names.weight)
    return args.Offsets(
        item=offset.get(names.item, np.zeros((num_rows, dim), np.float32)),
        item_bias=offset.get(names.item_bias, np.zeros(num_rows, np.float32)).reshape(-1),
        global_bias=offset.get(names.global_bias, empty).reshape(-1),
        weight=empty[:, None] if weight is None else weight.reshape(len(weight), -1),
    )
