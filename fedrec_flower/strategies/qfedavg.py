"""q-FedAvg: clients with larger losses have larger weights.

Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2.

The paper's F_k(w), a client's loss at the global parameters, would cost every client a pass over
its data. It is replaced by the mean training loss of the client's local training. With one full
batch that is F_k(w) exactly, on its sampled negatives; with more steps it is somewhat smaller.
Clients are also weighted by `num_examples` by default, uniformly, as in the paper, with
`weighting=uniform`. Clients report their own losses, so under the paper's rule one malicious
client could decide alone: therefore losses are capped.
"""

from collections.abc import Collection
from dataclasses import replace
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedrec_flower.core.ranges import NonNegativeFloat
from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Float64Array, Shapes, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.aggregators.robust import update_norms
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer
from fedrec_flower.strategies.base import Aggregation, FederationInfo, RoundInfo
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate, Weighting
from fedrec_flower.strategies.fedopt import FedOpt

_MIN_LOSS = 1e-10  # replaces a loss of 0, whose powers below 1 have no derivative


class QFedAvg(FedOpt):
    """Averages updates weighted by a power of the clients' losses.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: see `LocalUpdateRule`.
        q: exponent of the losses; 0 is FedOpt.
        lipschitz: Lipschitz constant of the gradient of a client's loss, in units of 1 / rate; the
            larger it is, the smaller the steps of long updates. None: 1 / training.learning_rate,
            as in the paper.
        loss_cap: largest loss that is used, in medians of the cohort, clients weighted; infinity
            is the paper's rule.
        server_optimizer: the server's optimizer; the paper averages.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Weighting,
        q: NonNegativeFloat,
        lipschitz: NonNegativeFloat | None,
        loss_cap: Annotated[float, Field(ge=1)],
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation, server_optimizer)
        if lipschitz is None:
            # With learning rate 0 no client moves and the constant has no effect.
            lipschitz = 1 / info.learning_rate if info.learning_rate else 0.0
        self.q = q
        self.lipschitz = lipschitz
        self.loss_cap = loss_cap
        self._weighting: Weighting = weighting

    @override
    def client_update(self) -> LocalUpdateRule:
        return PlainUpdate(weighting=self._weighting)

    @override
    def apply_updates(
        self, parameters: Tensors, updates: Updates, losses: Float64Array, round_: RoundInfo
    ) -> Tensors:
        total = fair_sum(
            updates,
            losses,
            {name: parameters[name].shape for name in updates.tensors},
            self.info.item_tables,
            self.info.num_items,
            self.q,
            self.lipschitz,
            self.loss_cap,
        )
        return self.apply_update(parameters, self.mean(total))


def fair_sum(
    updates: Updates,
    losses: Float64Array,
    shapes: Shapes,
    tables: Collection[str],
    num_items: int,
    q: float,
    lipschitz: float,
    loss_cap: float,
) -> UpdateSum:
    """The sum whose means are q-FedAvg's updates.

    A client of weight p, loss F and update d adds p * F^q * d to the sum and
    p * (F^q + q * lipschitz * F^(q - 1) * |d|^2) to the divisor: the paper's Delta and h, both
    divided by the Lipschitz constant. With q = 0 the means are those of plain averaging.

    Args:
        updates: the cohort's updates.
        losses: float64 (num_clients,), F; finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        num_items: size of the catalogue.
        q: exponent of the losses, not negative.
        lipschitz: Lipschitz constant of the gradient of a client's loss, in units of 1 / rate.
        loss_cap: largest F that is used, in medians of the cohort; infinity: the paper's rule.
    """
    total = UpdateSum.zeros(shapes, num_items)
    loss = _bounded_losses(losses, updates.weights, loss_cap)
    # Divided by the largest loss to avoid overflow; a common factor cancels out.
    weight = updates.weights * (loss / loss.max(initial=_MIN_LOSS)) ** q
    total.add(replace(updates, weights=weight), tables)
    divisor = weight * (1 + q * lipschitz * update_norms(updates, tables) ** 2 / loss)
    total.weight = float(divisor.sum())
    total.row_weight[:] = 0
    scatter_add_rows(total.row_weight, updates.rows, divisor[updates.owners])
    return total


def _bounded_losses(losses: Float64Array, weights: Float64Array, loss_cap: float) -> Float64Array:
    """The losses, above 0 and at most the cap; the median for clients of weight 0."""
    loss = np.maximum(losses, _MIN_LOSS)
    median = _weighted_median(loss, weights)
    # A client of weight 0 must not raise the largest loss, by which all powers are divided.
    return np.where(weights > 0, np.minimum(loss, loss_cap * median), median)


def _weighted_median(values: Float64Array, weights: Float64Array) -> float:
    """The smallest value that has, together with all smaller ones, half of the weight."""
    order = np.argsort(values)
    cumulative = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(cumulative, cumulative[-1] / 2)])
