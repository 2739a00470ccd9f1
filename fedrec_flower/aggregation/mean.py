"""Weighted means of client updates, over all clients or over those that touched a row.

Source: McMahan et al. 2017, Algorithm 1, for the mean over all clients.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Tensors, Updates
from fedrec_flower.rows import add_rows

ROW_WEIGHT = "row_weight"  # beside a sum of updates: `UpdateSum.row_weight`, as messages name it


def weighted_mean(updates: Sequence[Tensors], weights: Sequence[float]) -> Tensors:
    """Average client updates, each by its share of the total weight.

    Args:
        updates: one mapping of arrays per client; shapes agree across clients.
        weights: one non-negative number per client, here interactions trained on.

    Returns:
        One float32 array per name, shaped like the inputs.

    Raises:
        ValueError: if there is no client or the weights sum to zero.
    """
    if not updates:
        raise ValueError("an average needs at least one client")
    total = UpdateSum.zeros({name: array.shape for name, array in updates[0].items()}, 0)
    clients, nothing = np.arange(len(updates)), np.zeros(0, np.int64)
    shares = np.array([weight for _, weight in zip(updates, weights, strict=True)], np.float64)
    stacked = {name: np.stack([update[name] for update in updates]) for name in updates[0]}
    offsets = np.zeros(len(updates) + 1, np.int64)
    total.add(Updates(clients, shares, offsets, nothing, stacked), tables=())
    return mean_over_all_clients(total)


@dataclass(slots=True)
class UpdateSum:
    """A sum over clients of weight times update: all that a mean needs, and it can be summed.

    Attributes:
        tensors: float64, by name, full shapes.
        weight: sum of the clients' weights.
        row_weight: float64 (num_items,), sum of the weights of the clients that touched the row.
    """

    tensors: dict[str, NDArray[np.float64]]
    weight: float
    row_weight: NDArray[np.float64]

    @classmethod
    def zeros(cls, shapes: Mapping[str, tuple[int, ...]], num_items: int) -> Self:
        """The sum over no client."""
        # float64: thousands of float32 clients lose low bits.
        tensors = {name: np.zeros(shape) for name, shape in shapes.items()}
        return cls(tensors, 0.0, np.zeros(num_items))

    def add(self, updates: Updates, tables: Collection[str]) -> None:
        """Add clients' updates; `tables` names the parameters with a row per item."""
        row_weights = updates.row_weights
        for name, array in updates.tensors.items():
            if name in tables:
                add_rows(self.tensors[name], updates.rows, array, row_weights)
            else:
                self.tensors[name] += np.tensordot(updates.weights, array, axes=1)
        self.weight += float(updates.weights.sum())
        add_rows(self.row_weight, updates.rows, row_weights)


def mean_over_all_clients(total: UpdateSum) -> Tensors:
    """Textbook FedAvg: every tensor divided by the weight of the whole cohort.

    Raises:
        ValueError: if the weights sum to zero.
    """
    if total.weight <= 0:
        raise ValueError(f"the clients' weights must sum to more than zero, not {total.weight}")
    return {n: (array / total.weight).astype(np.float32) for n, array in total.tensors.items()}


def mean_over_touching_clients(total: UpdateSum, tables: Collection[str]) -> Tensors:
    """Each table row divided by the weight of the clients that touched it.

    A rare item's row then moves as far as its few clients ask. Rows that nobody touched stay.

    Args:
        total: the sum over the cohort.
        tables: names of the parameters with a row per item; others get the textbook mean.

    Raises:
        ValueError: if the weights sum to zero.
    """
    mean = mean_over_all_clients(total)
    divisor = np.where(total.row_weight > 0, total.row_weight, 1.0)
    for name in mean.keys() & set(tables):
        rows = total.tensors[name]
        mean[name] = (rows / divisor.reshape(-1, *[1] * (rows.ndim - 1))).astype(np.float32)
    return mean
