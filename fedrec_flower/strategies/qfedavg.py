"""q-FedAvg: clients with larger losses have more say. Source: Li et al. 2020, Algorithm 2.

"Fair Resource Allocation in Federated Learning". The paper's F_k(w), the loss of what a client was
given, would cost every client a pass over its data. The mean training loss of its local pass, as
it met its batches, stands for it: with one full batch that is F_k(w) exactly, on its sampled
negatives; with more steps it is somewhat smaller. Beside their losses, clients are
weighted by `num_examples` by default, uniformly, as in the algorithm, with `weighting=uniform`.
A client tells its loss itself, so the paper's rule lets one liar decide alone: losses are capped.

What clients weigh where those with larger losses shall have more say.

Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2 (q-FedAvg).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.aggregators.robust import update_norms
from fedrec_flower.strategies.base import Aggregation, FederationInfo, RoundInfo
from fedrec_flower.strategies.client_updates import Plain
from fedrec_flower.strategies.fedopt import ServerOptimizer, SteppingStrategy, chosen

_LEAST = 1e-10  # in place of a loss of nothing, whose powers below 1 have no slope


def fair_sum(
    updates: Updates,
    losses: NDArray[np.float64],
    shapes: Mapping[str, tuple[int, ...]],
    tables: Collection[str],
    num_items: int,
    q: float,
    lipschitz: float,
    loss_cap: float,
) -> UpdateSum:
    """The sum whose means are q-FedAvg's updates.

    A client of weight p, loss F and update d adds p * F^q * d to the sum, and to what the sum is
    divided by p * (F^q + q * lipschitz * F^(q - 1) * |d|^2): the paper's Delta and h, both over
    the Lipschitz constant. With q = 0 the means are those of plain averaging.

    Args:
        updates: of the cohort.
        losses: float64 (num_clients,), F; finite.
        shapes: full shapes of the parameters.
        tables: names of those with a row per item.
        num_items: size of the catalogue.
        q: how much more say larger losses have; not negative.
        lipschitz: how fast the gradient of a client's loss may change, in units of 1 / rate.
        loss_cap: the most that F may be, in medians of the cohort; infinity: the paper's rule.
    """
    total = UpdateSum.zeros(shapes, num_items)
    loss = _believed(losses, updates.weights, loss_cap)
    say = updates.weights * (loss / loss.max(initial=_LEAST)) ** q  # a common factor cancels out
    total.add(replace(updates, weights=say), tables)
    divisor = say * (1 + q * lipschitz * update_norms(updates, tables) ** 2 / loss)
    total.weight = float(divisor.sum())
    total.row_weight[:] = 0
    scatter_add_rows(total.row_weight, updates.rows, divisor[updates.owners])
    return total


def _believed(
    losses: NDArray[np.float64], weights: NDArray[np.float64], loss_cap: float
) -> NDArray[np.float64]:
    """Losses above zero and below the cap; clients of no weight have the median's."""
    loss = np.maximum(losses, _LEAST)
    median = _weighted_median(loss, weights)
    # Another's power must not vanish beside the loss of a client that has no say.
    return np.where(weights > 0, np.minimum(loss, loss_cap * median), median)


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The least value that, with all below it, has half of the weight."""
    order = np.argsort(values)
    reached = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(reached, reached[-1] / 2)])


class QFedAvg(SteppingStrategy):
    """Averages updates, each with a power of its client's loss.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        weighting: what each client weighs in the means: "examples", its training interactions;
            "uniform", one, as in the paper.
        q: how much more say larger losses have; 0 is plain averaging.
        lipschitz: how fast the gradient of a client's loss may change, in units of 1 / rate; the
            larger, the shorter the steps of long updates. None: 1 / training.learning_rate, as in
            the paper.
        loss_cap: no client is believed a loss of more than so many times the cohort's median,
            clients weighted; infinity: the paper's rule.
        server_optimizer: how the server steps, named as the strategy that averages and steps so;
            the paper's is "fedavg".
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if a value is impossible.
    """

    needs_individual_updates: ClassVar[bool] = True
    uses_only_the_sum: ClassVar[bool] = False

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        weighting: Literal["uniform", "examples"],
        q: float,
        lipschitz: float | None,
        loss_cap: float,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        require(q >= 0, f"strategy.q must not be negative: {q}")
        possible = lipschitz is None or lipschitz >= 0
        require(possible, f"strategy.lipschitz must not be negative: {lipschitz}")
        require(loss_cap >= 1, f"strategy.loss_cap must be at least 1: {loss_cap}")
        step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        super().__init__(info, aggregation, step)
        rate = info.learning_rate
        by_rate = 1 / rate if rate else 0.0  # at no rate nobody moves
        self.q, self.lipschitz = q, by_rate if lipschitz is None else lipschitz
        self.loss_cap, self._weighting = loss_cap, weighting

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`."""
        return Plain(weighting=self._weighting)

    def apply_updates(
        self,
        parameters: Tensors,
        updates: Updates,
        losses: NDArray[np.float64],
        round_: RoundInfo,
    ) -> Tensors:
        """See `FederatedStrategy.apply_updates`."""
        del round_
        info = self.info
        shapes = {name: parameters[name].shape for name in updates.tensors}
        rates = self.q, self.lipschitz, self.loss_cap
        total = fair_sum(updates, losses, shapes, info.item_tables, info.num_items, *rates)
        return self.apply_update(parameters, self.mean(total))
