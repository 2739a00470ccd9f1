"""Robust aggregation rules: median, trimmed mean and norm bounding.

A few malicious clients cannot move these averages far. A rule needs every client's single update.
For a row of an item table, "all_clients" takes one value from every client of the cohort, 0 from
clients that did not touch the row (the textbook's full vectors); "touched_clients" takes the
values of the clients that touched the row. Most clients touch few rows, so under "all_clients"
most values are 0 and so is the median. Under "touched_clients" a row that a single client touched
follows that client; no rule can prevent that. Other parameters always have a value per client.

A client's update is zero in every row it did not touch. These zeros are counted and not stored:
whole tables of a cohort would not fit into memory.

Weights are `num_examples` and above 0: clients without training data must be left out.

Source: Yin et al. 2018 (`median`, `trimmed_mean`); Sun et al. 2019 (`norm_bound`).
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.strategies.base import Aggregation

_MAX_VALUES_AT_ONCE = 1_000_000  # float32 values per piece: 4 MB, and a few times that in copies


@dataclass(frozen=True)
class CoordinateValues:
    """The values of several clients at the same coordinates.

    Attributes:
        values: float32 (num_rows, num_clients, width), finite.
        weights: float64 (num_rows, num_clients), above 0.
        num_implicit_zeros: number of further clients, whose value is 0 in every row.
        implicit_weight: float64 (num_rows,), summed weight of those clients.
    """

    values: Float32Array
    weights: Float64Array
    num_implicit_zeros: int
    implicit_weight: Float64Array

    @property
    def count(self) -> int:
        """Number of clients, including those with implicit zeros."""
        return int(self.weights.shape[1]) + self.num_implicit_zeros

    @cached_property
    def ascending(self) -> Float32Array:
        """float32 (num_rows, width, num_clients): the stored values in ascending order."""
        # Always a copy, also of a single column: sorting must not change `values`.
        ordered = np.array(self.values.transpose(0, 2, 1), order="C")
        ordered.sort(axis=-1)
        return ordered

    @cached_property
    def num_negative(self) -> IndexArray:
        """int64 (num_rows, width, 1): number of stored values below the implicit zeros."""
        return np.count_nonzero(self.ascending < 0, axis=-1, keepdims=True).astype(np.int64)

    def ranked(self, ranks: IndexArray) -> Float32Array:
        """The values at some ranks among all clients, implicit zeros included.

        Args:
            ranks: int64 (n,), from 0, the smallest value, to `count` - 1.

        Returns:
            float32 (num_rows, width, n).
        """
        is_not_below = ranks >= self.num_negative
        last = self.ascending.shape[-1] - 1
        places = np.clip(ranks - self.num_implicit_zeros * is_not_below, 0, last)
        is_zero = is_not_below & (ranks < self.num_negative + self.num_implicit_zeros)
        values: Float32Array = np.take_along_axis(self.ascending, places, axis=-1)
        values[is_zero] = 0
        return values

    def mean(self) -> Float32Array:
        """float32 (num_rows, width): the mean, weighted by the clients' weights."""
        total = np.matmul(self.weights[:, None], self.values)[:, 0]
        weight = self.weights.sum(axis=1) + self.implicit_weight
        mean: Float32Array = (total / weight[:, None]).astype(np.float32)
        return mean


Rule = Callable[[CoordinateValues], Float32Array]  # returns (num_rows, width)


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Some item rows, each touched by the same number of clients.

    Attributes:
        items: int64 (num_rows,), the item rows.
        entries: int64 (num_rows, num_clients), positions in `Updates.rows`.
        clients: int64 (num_rows, num_clients), positions of the clients that touched the row.
    """

    items: IndexArray
    entries: IndexArray
    clients: IndexArray

    def select(self, chosen: IndexArray) -> Self:
        """Keep some clients of each row: int64 (num_rows, n), positions among its clients."""
        entries = np.take_along_axis(self.entries, chosen, axis=1)
        clients = np.take_along_axis(self.clients, chosen, axis=1)
        return type(self)(self.items, entries, clients)

    def values(self, updates: Updates, name: str) -> Float32Array:
        """float32 (num_rows, num_clients, width): the clients' updates of the rows of a table."""
        array: Float32Array = flatten_rows(updates.tensors[name])[self.entries]
        return array

    def apply(
        self,
        result: Tensors,
        updates: Updates,
        tables: Iterable[str],
        rule: Rule,
        *,
        all_clients: bool = False,
    ) -> None:
        """Apply a rule to these rows of tables.

        Args:
            result: where the aggregated rows are written, by name, full shapes.
            updates: the clients' updates.
            tables: names of the tables.
            rule: from the clients' values at a coordinate to the aggregated value.
            all_clients: whether clients that did not touch a row count with an implicit zero.
        """
        weights = updates.weights[self.clients]
        num_implicit_zeros = 0
        implicit_weight = np.zeros(len(weights))
        if all_clients and len(updates.clients) > weights.shape[1]:
            num_implicit_zeros = len(updates.clients) - weights.shape[1]
            implicit_weight = np.maximum(updates.weights.sum() - weights.sum(axis=1), 0)
        for name in tables:
            values = self.values(updates, name)
            coordinates = CoordinateValues(values, weights, num_implicit_zeros, implicit_weight)
            result[name][self.items] = rule(coordinates).reshape(-1, *result[name].shape[1:])


def row_groups(updates: Updates, tables: Collection[str]) -> Iterator[RowGroup]:
    """Every touched item row once, in pieces that fit into memory.

    Args:
        updates: the clients' updates.
        tables: names of the parameters with a row per item; without any there are no groups.
    """
    width = sum(flatten_rows(updates.tensors[name]).shape[1] for name in tables)
    if not width:
        return
    order = np.argsort(updates.rows, kind="stable")
    owners = updates.owners
    items, starts, counts = np.unique(updates.rows[order], return_index=True, return_counts=True)
    for num_clients in np.unique(counts).tolist():
        with_this_count = np.flatnonzero(counts == num_clients)
        size = max(1, _MAX_VALUES_AT_ONCE // (num_clients * max(width, num_clients)))
        for start in range(0, len(with_this_count), size):
            part = with_this_count[start : start + size]
            entries = order[starts[part, None] + np.arange(num_clients)]
            yield RowGroup(items[part], entries, owners[entries])


def flatten_rows(array: NDArray[Any]) -> NDArray[Any]:
    """A view with two axes, (n, width), of an array with one entry per row or per client."""
    return array.reshape(len(array), prod(array.shape[1:]))


def coordinatewise(
    updates: Updates, shapes: Shapes, tables: Collection[str], aggregation: Aggregation, rule: Rule
) -> Tensors:
    """Apply a rule to every coordinate of every parameter.

    Args:
        updates: the clients' updates.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: whether a client that did not touch a table's row counts with a zero
            ("all_clients") or is left out ("touched_clients").
        rule: from the clients' values at a coordinate to the aggregated value.

    Returns:
        float32 by name, full shapes; rows that no client touched are zero.
    """
    result = {name: np.zeros(shapes[name], np.float32) for name in updates.tensors}
    sent_tables = [name for name in updates.tensors if name in tables]
    for group in row_groups(updates, sent_tables):
        group.apply(result, updates, sent_tables, rule, all_clients=aggregation == "all_clients")
    for name in result.keys() - set(sent_tables):
        values = flatten_rows(updates.tensors[name])
        result[name] = _over_all_clients(values, updates.weights, rule).reshape(shapes[name])
    return result


def _over_all_clients(values: Float32Array, weights: Float64Array, rule: Rule) -> Float32Array:
    """Apply a rule to (num_clients, n) values, one per client and coordinate; returns (n,)."""
    size = max(1, _MAX_VALUES_AT_ONCE // len(values))
    no_weight = np.zeros(1)
    parts = [np.zeros(0, np.float32)]
    for start in range(0, values.shape[1], size):
        piece = values[None, :, start : start + size]
        parts.append(rule(CoordinateValues(piece, weights[None], 0, no_weight))[0])
    return np.concatenate(parts)


def median(
    updates: Updates, shapes: Shapes, tables: Collection[str], aggregation: Aggregation
) -> Tensors:
    """The median of each coordinate; clients are not weighted.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: which clients count in a table's row; see the module.

    Returns:
        float32 by name, full shapes.
    """
    return coordinatewise(updates, shapes, tables, aggregation, coordinate_median)


def trimmed_mean(
    updates: Updates, shapes: Shapes, tables: Collection[str], aggregation: Aggregation, trim: float
) -> Tensors:
    """The mean of each coordinate without its extremes, weighted by `num_examples`.

    With trim 0 it is FedAvg. Where several values are equal to the value at the cut, each keeps
    the same share of its weight, so that the order of the clients does not matter.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: which clients count in a table's row; see the module.
        trim: share of the clients cut at each end, rounded down, in [0, 0.5).

    Returns:
        float32 by name, full shapes.
    """
    return coordinatewise(updates, shapes, tables, aggregation, partial(_trimmed, trim=trim))


def norm_bound(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    aggregation: Aggregation,
    bound: float | None,
) -> Tensors:
    """FedAvg of updates scaled down to a maximum norm, weighted by `num_examples`.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: which clients' weights divide a table's row; see the module.
        bound: maximum Euclidean norm of a whole update, over all parameters; None takes the
            median norm of the cohort.

    Returns:
        float32 by name, full shapes.
    """
    lengths = update_norms(updates, tables)
    limit = float(np.median(lengths)) if bound is None else bound
    scale = limit / np.maximum(lengths, max(limit, np.finfo(float).tiny))
    num_items = next((shapes[name][0] for name in updates.tensors if name in tables), 0)
    total = UpdateSum.zeros({name: shapes[name] for name in updates.tensors}, num_items)
    # The scale shortens the update and leaves the client's weight, so the divisors stay.
    total.add(replace(updates, weights=updates.weights * scale), tables)
    total.weight = float(updates.weights.sum())
    row_weight = np.bincount(updates.rows, updates.row_weights, num_items)
    total.row_weight = row_weight.astype(np.float64)
    if aggregation == "all_clients":
        return mean_over_all_clients(total)
    return mean_over_touching_clients(total, tables)


def update_norms(updates: Updates, tables: Collection[str]) -> Float64Array:
    """float64 (num_clients,): Euclidean norm of each client's whole update."""
    squares = np.zeros(len(updates.clients))
    for name, array in updates.tensors.items():
        rows = flatten_rows(array)
        # float64: the square of a large float32 is infinite.
        row_squares: Float64Array = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
        if name in tables:
            squares += np.bincount(updates.owners, row_squares, len(squares))
        else:
            squares += row_squares
    return np.sqrt(squares)


def coordinate_median(coordinates: CoordinateValues) -> Float32Array:
    """The median of each coordinate, (num_rows, width).

    For an even number of values it is the mean of the two in the middle.
    """
    middle_ranks = np.array([(coordinates.count - 1) // 2, coordinates.count // 2])
    center: Float32Array = coordinates.ranked(middle_ranks).mean(axis=-1)
    return center


def floor_share(count: int, share: float) -> int:
    """A share of a number of clients, rounded down; 29 % of 100 are 29 in spite of rounding."""
    return int(share * count + 1e-9)


def _trimmed(coordinates: CoordinateValues, trim: float) -> Float32Array:
    num_cut = floor_share(coordinates.count, trim)
    if not num_cut:
        return coordinates.mean()
    ends = np.array([num_cut, coordinates.count - 1 - num_cut])
    low, high = np.moveaxis(coordinates.ranked(ends), -1, 0)
    result = np.zeros(low.shape, np.float32)
    _compiled()(
        coordinates.values,
        coordinates.weights,
        coordinates.num_implicit_zeros,
        coordinates.implicit_weight,
        low,
        high,
        num_cut,
        result,
    )
    return result


def _mean_between(
    values: Any,
    weights: Any,
    num_zeros: Any,
    zero_weight: Any,
    low: Any,
    high: Any,
    num_cut: Any,
    result: Any,
) -> None:
    """Write the weighted mean of the values from `low` to `high` to `result`, (num_rows, width).

    Of the values equal to `low` (or `high`) some may be cut: as many as make `num_cut` together
    with all values below (above).
    """
    num_rows, num_clients, width = values.shape
    for row in range(num_rows):
        for column in range(width):
            smallest, largest = low[row, column], high[row, column]
            if smallest == largest:
                result[row, column] = smallest
                continue
            total = weight = low_weight = high_weight = 0.0
            below = above = at_low = at_high = 0
            for client in range(num_clients + 1):
                # The last pass stands for all implicit zeros.
                value, share, count = np.float32(0), zero_weight[row], num_zeros
                if client < num_clients:
                    value, share, count = values[row, client, column], weights[row, client], 1
                if value < smallest:
                    below += count
                elif value == smallest:
                    at_low, low_weight = at_low + count, low_weight + share
                elif value < largest:
                    total, weight = total + share * value, weight + share
                elif value == largest:
                    at_high, high_weight = at_high + count, high_weight + share
                else:
                    above += count
            low_weight *= (below + at_low - num_cut) / at_low
            high_weight *= (above + at_high - num_cut) / at_high
            total += low_weight * smallest + high_weight * largest
            result[row, column] = total / (weight + low_weight + high_weight)


@cache
def _compiled() -> Any:
    return compiled(_mean_between)  # at first use: the compiler takes a second to import
