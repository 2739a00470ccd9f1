"""The compiled trainer: SGD for factor models in one compiled loop over clients.

It takes the same steps as the other trainers on the same samples and changes rows in place; see
`kernels`. Where only the sum of the updates is needed, no update of a client is stored.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.data.prepared import ClientData
from fedrec_flower.models.abilities import BilinearForm, bilinear_form
from fedrec_flower.training import kernel_arguments as args
from fedrec_flower.training.batches import ActiveRows, CohortBatch
from fedrec_flower.training.chunking import chunk_clients
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.gradient_correction import proximal_factors
from fedrec_flower.training.model_versions import Versions
from fedrec_flower.training.negative_sampling import ratings_of
from fedrec_flower.training.trainer import PersonalParameters, Summed, SummingTrainer

# The loop takes one client after another: more clients per chunk cost memory and save no time.
_MAX_USEFUL_MB = 64


class CompiledTrainer(SummingTrainer):
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
        from fedrec_flower.training.cohort_kernels import train_each

        names = self._form
        loss = np.zeros(len(chunk.cohort))
        train_each(
            _parameters(chunk, names),
            _offsets(chunk, names),
            self._rates(chunk.correction.factor),
            chunk.cohort.user_offsets,
            chunk.touched.offsets,
            chunk.epochs[0].offsets,
            np.stack([samples.user for samples in chunk.epochs]),
            np.stack(chunk.touched.places),
            np.stack([samples.target for samples in chunk.epochs]),
            loss,
        )
        return loss

    @override
    def can_sum(self, shared: Collection[str]) -> bool:
        return set(shared) == self._form.shared_names

    @override
    def add_updates(
        self,
        cohort: Cohort,
        weights: NDArray[np.float64],
        versions: Versions,
        personal: PersonalParameters,
        round_: int,
        proximal: float,
        max_value: float,
        total: UpdateSum,
    ) -> Summed:
        from fedrec_flower.training.cohort_kernels import train_and_add

        names, num_clients = self._form, len(cohort)
        users = personal.gather(cohort, ActiveRows.none(num_clients))
        factor = proximal_factors(proximal, {n: self._rate(n) for n in names.shared_names})
        outcomes = args.Outcomes(
            loss=np.zeros(num_clients),
            num_rows=np.zeros(num_clients, np.int64),
            is_valid=np.zeros(num_clients, np.bool_),
        )
        train_and_add(
            self._clients(cohort, round_),
            _shared(versions, names, cohort.clients),
            users[names.user],
            _column(users, names.user_bias, cohort.num_users),
            self._rates(factor),
            weights,
            max_value,
            _totals(total, names),
            outcomes,
        )
        total.weight += float(weights[outcomes.is_valid].sum())
        return Summed(cohort, weights, outcomes.is_valid, outcomes.num_rows, outcomes.loss, users)

    @property
    def _form(self) -> BilinearForm:
        form = bilinear_form(self.model)
        if form is None:
            raise ValueError(f"{type(self.model).__name__} is no model of factors")
        return form

    def _rates(self, factor: Mapping[str, float]) -> args.Rates:
        """The constants of a step; `factor` is `CorrectionTerms.factor`."""
        setting, names = self.training, self._form
        losses = {"bce": args.BCE, "bpr": args.BPR, "mse": args.MSE, "softmax": args.SOFTMAX}
        item_pull = factor.get(names.item, 0.0)
        return args.Rates(
            loss=losses[setting.loss],
            table=np.float32(setting.learning_rate),
            dense=np.float32(setting.dense_learning_rate),
            shrink=1.0 - setting.learning_rate * setting.weight_decay,
            learns=(bool(names.user_bias), bool(names.global_bias), bool(names.weight)),
            batch_size=setting.batch_size or args.ALL,
            item_shrink=1.0 - setting.learning_rate * (setting.weight_decay + item_pull),
            item_pull=np.float32(item_pull),
            bias_pull=np.float32(factor.get(names.global_bias, 0.0)),
            weight_pull=np.float32(factor.get(names.weight, 0.0)),
        )

    def _clients(self, cohort: Cohort, round_: int) -> args.Clients:
        sampler, num_epochs = self.sampler, self.training.local_epochs
        per_interaction, epochs = sampler.per_interaction, range(num_epochs)
        negatives = np.zeros((num_epochs, 0), np.int64)
        if sampler.task == "ranking":
            negatives = np.stack([sampler.negatives(cohort, round_, epoch) for epoch in epochs])
        offsets = cohort.offsets * per_interaction
        return args.Clients(
            offsets=cohort.offsets,
            user_offsets=cohort.user_offsets,
            user=cohort.user,
            item=cohort.item,
            rating=ratings_of(cohort) if sampler.task == "rating" else np.zeros(0, np.float32),
            negatives=negatives,
            order=np.stack([sampler.order(cohort, offsets, round_, epoch) for epoch in epochs]),
            width=sampler.width,
            per_interaction=per_interaction,
        )


def _column(values: Mapping[str, NDArray[Any]], name: str, size: int) -> NDArray[Any]:
    """A bias of each row, (size,); zeros if the model has none."""
    return values[name].reshape(-1) if name else np.zeros(size, np.float32)


def _parameters(chunk: CohortBatch, names: BilinearForm) -> args.Parameters:
    values, num_clients = chunk.values, len(chunk.cohort)
    item = values[names.item]
    if names.weight:
        weight = values[names.weight].reshape(num_clients, -1)
    else:
        weight = np.ones((num_clients, item.shape[1]), np.float32)
    return args.Parameters(
        user=values[names.user],
        item=item,
        user_bias=_column(values, names.user_bias, chunk.cohort.num_users),
        item_bias=_column(values, names.item_bias, len(item)),
        global_bias=_column(values, names.global_bias, num_clients),
        weight=weight,
    )


def _shared(versions: Versions, names: BilinearForm, clients: IndexArray) -> args.Shared:
    tensors = versions.tensors
    item = tensors[names.item]
    num_versions, num_items, dim = item.shape

    def flat(name: str, width: int, default: float) -> Float32Array:
        shape = (num_versions, width)
        return tensors[name].reshape(shape) if name else np.full(shape, default, np.float32)

    return args.Shared(
        item=item,
        item_bias=flat(names.item_bias, num_items, 0.0),
        global_bias=flat(names.global_bias, 1, 0.0)[:, 0],
        weight=flat(names.weight, dim, 1.0),
        version=versions.of_clients(clients),
    )


def _totals(total: UpdateSum, names: BilinearForm) -> args.Totals:
    """The sums as views; a sum that the model does not have is thrown away."""
    item = total.tensors[names.item]

    def flat(name: str, size: int) -> Float64Array:
        return total.tensors[name].reshape(-1) if name else np.zeros(size)

    return args.Totals(
        item=item,
        item_bias=flat(names.item_bias, len(item)),
        global_bias=flat(names.global_bias, 1),
        weight=flat(names.weight, item.shape[1]),
        row_weight=total.row_weight,
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
