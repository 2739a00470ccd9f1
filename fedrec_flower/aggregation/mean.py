"""Weighted means of client updates, over all clients or over those that touched a row.

Source: McMahan et al. 2017, Algorithm 1, for the mean over all clients.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Tensors = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, slots=True)
class Update:
    """What one client may send.

    Attributes:
        client: the client's code.
        weight: its share in the average; here its number of training interactions.
        rows: int64 (num_touched,), the item rows it touched, ascending.
        tensors: new minus global value of each shared parameter; a table with a row per item
            has shape (num_touched, ...), anything else its full shape.
    """

    client: int
    weight: float  # num_examples
    rows: NDArray[np.int64]
    tensors: Tensors


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
    nothing = np.empty(0, np.int64)
    for tensors, weight in zip(updates, weights, strict=True):
        total.add(Update(0, weight, nothing, tensors), tables=())
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

    def add(self, update: Update, tables: Collection[str]) -> None:
        """Add one client's update; `tables` names the parameters with a row per item."""
        for name, array in update.tensors.items():
            place = update.rows if name in tables else ...
            self.tensors[name][place] += update.weight * array
        self.weight += update.weight
        self.row_weight[update.rows] += update.weight


def merge(sums: Sequence[UpdateSum]) -> UpdateSum:
    """Add up the sums of several nodes."""
    shapes = {name: array.shape for name, array in sums[0].tensors.items()}
    total = UpdateSum.zeros(shapes, len(sums[0].row_weight))
    for part in sums:
        for name, array in part.tensors.items():
            total.tensors[name] += array
        total.weight += part.weight
        total.row_weight += part.row_weight
    return total


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
