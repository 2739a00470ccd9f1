"""Client updates in a flat layout, and weighted means of them.

A mean is over all clients, or for each table row over the clients that touched it.

Source: McMahan et al. 2017, Algorithm 1, for the mean over all clients.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.scatter import scatter_add_rows
from fedrec_flower.core.types import Tensors

HUGE = 1e6  # upper limit of an honest update of one parameter, for any learning rate


# Names of the layout arrays that accompany stacked tensors in a message.
LAYOUT = ("stacked/clients", "stacked/weights", "stacked/offsets", "stacked/rows", "stacked/loss")


@dataclass(frozen=True, slots=True)
class Updates:
    """Updates of several clients, concatenated in client order.

    Attributes:
        clients: int64 (num_clients,), their codes.
        weights: float64 (num_clients,), weights in the average, such as `num_examples`.
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        rows: int64 (num_rows,), the item rows that each client touched, ascending within a client.
        tensors: new minus global value of each shared parameter; a table with a row per item
            has shape (num_rows, ...), anything else one copy per client, (num_clients, ...).
    """

    clients: NDArray[np.int64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.int64]
    rows: NDArray[np.int64]
    tensors: Tensors

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """float64 (num_rows,): the weight of the client that touched the row."""
        return np.repeat(self.weights, np.diff(self.offsets))

    @property
    def owners(self) -> NDArray[np.int64]:
        """int64 (num_rows,): the place of the client that touched the row."""
        return np.repeat(np.arange(len(self.clients)), np.diff(self.offsets))

    def select(self, places: NDArray[np.int64], tables: Collection[str]) -> Self:
        """Select clients by place, in that order. `tables` names the tensors with item rows."""
        sizes = np.diff(self.offsets)[places]
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], sizes)
        rows = np.repeat(self.offsets[places], sizes) + within
        tensors = {n: array[rows if n in tables else places] for n, array in self.tensors.items()}
        return type(self)(
            self.clients[places], self.weights[places], offsets, self.rows[rows], tensors
        )

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Concatenate the clients of several parts; at least one part is needed."""
        if len(parts) == 1:
            return parts[0]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            np.concatenate([part.clients for part in parts]),
            np.concatenate([part.weights for part in parts]),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            np.concatenate([part.rows for part in parts]),
            {n: np.concatenate([part.tensors[n] for part in parts]) for n in parts[0].tensors},
        )


ROW_WEIGHT = "row_weight"  # name of `UpdateSum.row_weight` in a message


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
    """The sum over clients of weight times update. Sums can be added; a mean needs no more.

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
        """Return the sum over an empty set of clients."""
        # float64: thousands of float32 clients lose low bits.
        tensors = {name: np.zeros(shape) for name, shape in shapes.items()}
        return cls(tensors, 0.0, np.zeros(num_items))

    def add(self, updates: Updates, tables: Collection[str]) -> None:
        """Add clients' updates; `tables` names the parameters with a row per item."""
        row_weights = updates.row_weights
        for name, array in updates.tensors.items():
            if name in tables:
                scatter_add_rows(self.tensors[name], updates.rows, array, row_weights)
            else:
                self.tensors[name] += np.tensordot(updates.weights, array, axes=1)
        self.weight += float(updates.weights.sum())
        scatter_add_rows(self.row_weight, updates.rows, row_weights)


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

    The row of a rare item then moves by the mean of its few clients. Untouched rows stay.

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
