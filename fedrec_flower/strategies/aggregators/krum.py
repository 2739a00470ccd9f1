"""Krum, Multi-Krum and Bulyan: aggregate only clients that are close to their neighbours.

A client's score is the sum of its squared distances to its n - f - 2 nearest other clients, where
n clients include f malicious ones. Clients with low scores are selected. Under "all_clients" whole
updates are compared, once. Under "touched_clients" each item row has a selection of its own among
the clients that touched it, by its values in all tables; the parameters that are no item tables
have one selection among all clients. Few clients tolerate few malicious ones: `num_tolerated`.

Comparing n clients takes n * n distances: cohorts of thousands are slow.

Source: Blanchard et al. 2017 (Krum, Multi-Krum); El Mhamdi et al. 2018 (Bulyan).
"""

from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from typing_extensions import override

from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.robust import (
    CoordinateValues,
    Rule,
    coordinate_median,
    coordinatewise,
    flatten_rows,
    floor_share,
    row_groups,
)
from fedrec_flower.strategies.base import Aggregation

Selection = Literal["once", "recursive"]

# n clients tolerate f malicious ones if n >= factor * f + 3.
KRUM_FACTOR = 2
BULYAN_FACTOR = 4


def krum(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    aggregation: Aggregation,
    malicious_share: float,
) -> Tensors:
    """The update of the one client with the lowest score.

    Args:
        updates: the clients' updates, finite, of weights above 0.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: which clients are compared with each other; see the module.
        malicious_share: share of the clients that may be malicious, in [0, 0.5).

    Returns:
        float32 by name, full shapes.
    """
    return KrumRule(malicious_share).aggregate(updates, shapes, tables, aggregation)


def multi_krum(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    aggregation: Aggregation,
    malicious_share: float,
) -> Tensors:
    """The mean, weighted by `num_examples`, of the n - f clients with the lowest scores.

    Without malicious clients it is FedAvg. Arguments: see `krum`.
    """
    return MultiKrumRule(malicious_share).aggregate(updates, shapes, tables, aggregation)


def bulyan(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    aggregation: Aggregation,
    malicious_share: float,
    selection: Selection,
) -> Tensors:
    """Of n - 2f selected clients, the mean of the n - 4f values nearest the median.

    The nearest values are chosen for each coordinate; clients are not weighted.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        aggregation: which clients are compared with each other; see the module.
        malicious_share: share of the clients that may be malicious, in [0, 0.25).
        selection: "once": the n - 2f clients with the lowest scores, as in Flower; "recursive":
            the client with the lowest score among the remaining ones, n - 2f times, as in the
            paper. That takes n^3 comparisons of distances.

    Returns:
        float32 by name, full shapes.
    """
    return BulyanRule(malicious_share, selection).aggregate(updates, shapes, tables, aggregation)


def num_tolerated(count: int, malicious_share: float, factor: int) -> int:
    """The number f of malicious clients that a rule assumes among `count` clients.

    Args:
        count: number of clients that are compared.
        malicious_share: share of them that may be malicious.
        factor: the rule needs count >= factor * f + 3; f is lowered if there are fewer clients.
    """
    return max(0, min(floor_share(count, malicious_share), (count - 3) // factor))


@dataclass(frozen=True, slots=True)
class NearestClientsRule(ABC):
    """Selects the clients with the lowest scores and combines their values.

    Attributes:
        malicious_share: share of the clients that may be malicious.
        selection: "once": by one set of scores; "recursive": one client after another, each by
            the scores among those that remain.
    """

    factor: ClassVar[int] = KRUM_FACTOR  # see `num_tolerated`

    malicious_share: float
    selection: Selection = "once"

    @abstractmethod
    def num_selected(self, count: int, num_malicious: int) -> int:
        """How many of `count` clients are selected if `num_malicious` are malicious."""

    def rule(self, count: int, num_malicious: int) -> Rule:  # noqa: ARG002  # for subclasses
        """How the selected clients' values are combined: here, their weighted mean."""
        return CoordinateValues.mean

    def aggregate(
        self, updates: Updates, shapes: Shapes, tables: Collection[str], aggregation: Aggregation
    ) -> Tensors:
        """Select clients and combine their updates; see `krum`."""
        if aggregation == "all_clients":
            return self._over_all_clients(updates, shapes, tables)
        item_tables = self._over_touching_clients(updates, shapes, tables)
        others = {name: array for name, array in updates.tensors.items() if name not in tables}
        whole = self._over_all_clients(replace(updates, tensors=others), shapes, ())
        return whole | item_tables

    def _over_all_clients(
        self, updates: Updates, shapes: Shapes, tables: Collection[str]
    ) -> Tensors:
        """One selection, by whole updates."""
        products = _update_products(updates, tables)
        selected = self._select(products[None], updates.clients[None])[0]
        rule = self._rule(len(updates.clients))
        chosen = updates.select(selected, tables)
        return coordinatewise(chosen, shapes, tables, "all_clients", rule)

    def _over_touching_clients(
        self, updates: Updates, shapes: Shapes, tables: Collection[str]
    ) -> Tensors:
        """One selection for each item row."""
        sent_tables = [name for name in updates.tensors if name in tables]
        result = {name: np.zeros(shapes[name], np.float32) for name in sent_tables}
        for group in row_groups(updates, sent_tables):
            values = np.concatenate([group.values(updates, name) for name in sent_tables], axis=-1)
            selected = self._select(_inner_products(values), updates.clients[group.clients])
            rule = self._rule(group.clients.shape[1])
            group.select(selected).apply(result, updates, sent_tables, rule)
        return result

    def _rule(self, count: int) -> Rule:
        return self.rule(count, num_tolerated(count, self.malicious_share, self.factor))

    def _select(self, products: Float64Array, clients: IndexArray) -> IndexArray:
        """The clients with the lowest scores; ties are broken by the lowest client code.

        Args:
            products: float64 (num_rows, n, n), inner products of the clients' updates.
            clients: int64 (num_rows, n), their codes.

        Returns:
            int64 (num_rows, num_selected), positions among the n clients.
        """
        count = clients.shape[1]
        num_malicious = num_tolerated(count, self.malicious_share, self.factor)
        num_selected = self.num_selected(count, num_malicious)
        distances = _squared_distances(products)
        if self.selection == "recursive":
            return _select_recursively(distances, clients, num_selected, num_malicious)
        scores = _scores(distances, count, num_malicious)
        return np.lexsort((clients, scores), axis=-1)[:, :num_selected]


@dataclass(frozen=True, slots=True)
class KrumRule(NearestClientsRule):
    """Takes the update of the client with the lowest score."""

    @override
    def num_selected(self, count: int, num_malicious: int) -> int:
        return 1


@dataclass(frozen=True, slots=True)
class MultiKrumRule(NearestClientsRule):
    """Averages the n - f clients with the lowest scores."""

    @override
    def num_selected(self, count: int, num_malicious: int) -> int:
        return count - num_malicious


@dataclass(frozen=True, slots=True)
class BulyanRule(NearestClientsRule):
    """Averages, of n - 2f selected clients, the n - 4f values nearest the median."""

    factor: ClassVar[int] = BULYAN_FACTOR

    @override
    def num_selected(self, count: int, num_malicious: int) -> int:
        return count - 2 * num_malicious

    @override
    def rule(self, count: int, num_malicious: int) -> Rule:
        return partial(_mean_near_the_median, num_near=count - 4 * num_malicious)


def _select_recursively(
    distances: Float64Array, clients: IndexArray, num_selected: int, num_malicious: int
) -> IndexArray:
    """Select the client with the lowest score, then that of the remaining ones, and so on.

    Source: El Mhamdi et al. 2018, section 4.

    Args:
        distances: float64 (num_rows, n, n), infinite on the diagonal; changed in place.
        clients: int64 (num_rows, n), their codes; ties are broken by the lowest.
        num_selected: number of clients to select.
        num_malicious: number of malicious clients among the n.

    Returns:
        int64 (num_rows, num_selected), positions among the n clients.
    """
    rows = np.arange(len(clients))
    count = clients.shape[1]
    selected = np.empty((len(clients), num_selected), np.int64)
    is_selected = np.zeros(clients.shape, np.bool_)
    for place in range(num_selected):
        scores = _scores(distances.copy(), count - place, num_malicious)
        first = np.lexsort((clients, scores, is_selected), axis=-1)[:, 0]
        selected[:, place] = first
        is_selected[rows, first] = True
        distances[rows, first] = np.inf
        distances[rows, :, first] = np.inf
    return selected


def _squared_distances(products: Float64Array) -> Float64Array:
    """Squared distances from inner products, both (num_rows, n, n); infinite on the diagonal."""
    squares = np.einsum("rii->ri", products)
    # Symmetric to the bit: two clients that are each other's nearest must tie, or rounding would
    # decide the selection.
    distances = products + products.swapaxes(1, 2)
    np.subtract(squares[:, :, None] + squares[:, None], distances, out=distances)
    np.einsum("rii->ri", distances)[:] = np.inf
    return distances


def _scores(distances: Float64Array, count: int, num_malicious: int) -> Float64Array:
    """Krum's scores, (num_rows, n), among `count` clients; changes the distances in place.

    Clients that are already selected must be infinitely far from all others.
    """
    if count == 1:
        return np.zeros(distances.shape[:2])
    num_near = max(1, count - num_malicious - 2)
    distances.partition(num_near - 1, axis=-1)
    scores: Float64Array = distances[..., :num_near].sum(axis=-1)
    return scores


def _update_products(updates: Updates, tables: Collection[str]) -> Float64Array:
    """float64 (n, n): inner products of the clients' whole updates, without whole tables."""
    count = len(updates.clients)
    total = np.zeros((count, count))
    for name, array in updates.tensors.items():
        if name not in tables:
            total += _inner_products(flatten_rows(array))
    sent_tables = [name for name in updates.tensors if name in tables]
    for group in row_groups(updates, sent_tables):
        values = np.concatenate([group.values(updates, name) for name in sent_tables], axis=-1)
        for clients, products in zip(group.clients, _inner_products(values), strict=True):
            total[np.ix_(clients, clients)] += products
    return total


def _inner_products(vectors: Float32Array) -> Float64Array:
    """Inner products (..., n, n) of vectors (..., n, width)."""
    # float64: a distance between large updates is the small difference of large numbers.
    exact = vectors.astype(np.float64)
    products: Float64Array = np.matmul(exact, exact.swapaxes(-1, -2))
    return products


def _mean_near_the_median(coordinates: CoordinateValues, num_near: int) -> Float32Array:
    """The mean of the `num_near` values nearest the median, the lower ones of equal distance.

    They are neighbours in ascending order, so only where they begin must be found.
    """
    starts = np.arange(coordinates.count - num_near)
    center = coordinate_median(coordinates)[..., None]
    below = center - coordinates.ranked(starts)
    above = coordinates.ranked(starts + num_near) - center
    first = np.count_nonzero(below > above, axis=-1, keepdims=True)
    ascending = coordinates.ascending
    ranks = np.arange(ascending.shape[-1]) + coordinates.num_implicit_zeros * (ascending >= 0)
    is_near = (ranks >= first) & (ranks < first + num_near)
    total = np.where(is_near, ascending, 0).sum(axis=-1, dtype=np.float64)
    mean: Float32Array = (total / num_near).astype(np.float32)
    return mean
