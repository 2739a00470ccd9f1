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
) -> UpdateSum:
    """The sum whose means are q-FedAvg's updates.

    A client of weight p, loss F and update d adds p * F^q * d to the sum, and to what the sum is
    divided by p * (F^q + q * lipschitz * F^(q - 1) * |d|^2): the paper's Delta and h, both over
    the Lipschitz constant. With q = 0 the means are those of plain averaging.

    Args:
        updates: of the cohort.
        losses: float64 (num_clients,), F; not negative.
        shapes: full shapes of the parameters.
        tables: names of those with a row per item.
        num_items: size of the catalogue.
        q: how much more say larger losses have; not negative.
        lipschitz: how fast the gradient of a client's loss may change, in units of 1 / rate.
    """
    total = UpdateSum.zeros(shapes, num_items)
    loss = np.maximum(losses, _LEAST)
    say = updates.weights * (loss / loss.max(initial=_LEAST)) ** q  # a common factor cancels out
    total.add(replace(updates, weights=say), tables)
    divisor = say * (1 + q * lipschitz * norms(updates, tables) ** 2 / loss)
    total.weight = float(divisor.sum())
    total.row_weight[:] = 0
    add_rows(total.row_weight, updates.rows, divisor[updates.owners])
    return total
