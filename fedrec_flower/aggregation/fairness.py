"""What clients weigh where those with larger losses shall have more say.

Source: Li et al. 2020, "Fair Resource Allocation in Federated Learning", Algorithm 2 (q-FedAvg).
"""

from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.mean import UpdateSum
from fedrec_flower.aggregation.robust import norms
from fedrec_flower.aggregation.updates import Updates
from fedrec_flower.rows import add_rows

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
    divisor = say * (1 + q * lipschitz * norms(updates, tables) ** 2 / loss)
    total.weight = float(divisor.sum())
    total.row_weight[:] = 0
    add_rows(total.row_weight, updates.rows, divisor[updates.owners])
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
