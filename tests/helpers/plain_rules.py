"""Robust rules as plain loops over clients, and cohorts to compare them on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec_flower.core.types import Shapes
from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.strategies.aggregators.krum import bulyan, krum, multi_krum, num_tolerated
from fedrec_flower.strategies.aggregators.robust import (
    median,
    norm_bound,
    trimmed_mean,
)
from fedrec_flower.strategies.base import Aggregation
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, cohorts, updates

Array = NDArray[np.float64]
Tensors = dict[str, NDArray[np.float32]]
EVERY_AGGREGATION = pytest.mark.parametrize("aggregation", ["all_clients", "touched_clients"])
COHORTS = cohorts(least=1, most=12)
SHARE = 0.2  # of malicious clients, and of the clients cut at each end


class Rule(Protocol):
    """A rule with its settings bound."""

    def __call__(
        self, updates: Updates, shapes: Shapes, tables: Sequence[str], aggregation: Aggregation
    ) -> Tensors: ...


RULES: dict[str, Rule] = {
    "median": median,
    "trimmed_mean": partial(trimmed_mean, trim=SHARE),
    "norm_bound": partial(norm_bound, bound=None),
    "krum": partial(krum, malicious_share=SHARE),
    "multi_krum": partial(multi_krum, malicious_share=SHARE),
    "bulyan": partial(bulyan, malicious_share=SHARE, selection="once"),
    "bulyan_recursive": partial(bulyan, malicious_share=SHARE, selection="recursive"),
}
EVERY_RULE = pytest.mark.parametrize("name", RULES)


def combined(rule: Rule, cohort: Sequence[Client], aggregation: Aggregation) -> Tensors:
    return rule(updates(cohort), SHAPES, TABLES, aggregation)


def fedavg(cohort: Sequence[Client], aggregation: Aggregation) -> Tensors:
    total = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    total.add(updates(cohort), TABLES)
    if aggregation == "all_clients":
        return mean_over_all_clients(total)
    return mean_over_touching_clients(total, TABLES)


def plain_median(values: Array, weights: Array) -> Array:
    del weights
    return np.median(values, axis=0)


def plain_trimmed(values: Array, weights: Array) -> Array:
    """Values that are equal to the value at the cut keep the same part of their weight."""
    count, result = len(values), np.zeros(values.shape[1:])
    cut = int(SHARE * count)
    for place in np.ndindex(result.shape):
        values_here = values[(slice(None), *place)]
        total = weight = 0.0
        for value in np.unique(values_here):
            is_equal, below = values_here == value, int((values_here < value).sum())
            ranks = np.arange(below, below + is_equal.sum())
            share = np.mean((ranks >= cut) & (ranks < count - cut)) * weights[is_equal].sum()
            total, weight = total + share * value, weight + share
        result[place] = total / weight
    return result


def scores(vectors: Array, num_malicious: int) -> Array:
    count = len(vectors)
    distances = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=-1)
    others = [np.sort(np.delete(distances[i], i)) for i in range(count)]
    return np.array([near[: max(1, count - num_malicious - 2)].sum() for near in others])


def lowest_scores(vectors: Array, num_malicious: int, count: int) -> list[int]:
    best: list[int] = np.argsort(scores(vectors, num_malicious), kind="stable")[:count].tolist()
    return best


def lowest_scores_recursively(vectors: Array, num_malicious: int, count: int) -> list[int]:
    """El Mhamdi et al. 2018, section 4: Krum among the remaining clients, until done."""
    remaining, chosen = list(range(len(vectors))), list[int]()
    while len(chosen) < count:
        best = int(np.argmin(scores(vectors[remaining], num_malicious)))
        chosen.append(remaining.pop(best))
    return chosen


def near_the_median(values: Array, count: int) -> Array:
    rising = np.sort(values, axis=0)  # of two values at equal distance, the lower
    order = np.argsort(np.abs(rising - np.median(values, axis=0)), axis=0, kind="stable")[:count]
    return np.asarray(np.take_along_axis(rising, order, axis=0).mean(axis=0))


Plain = Callable[[Array, Array], Array]


def plain_coordinatewise(
    cohort: Sequence[Client], aggregation: Aggregation, rule: Plain
) -> Tensors:
    """Apply the rule over whole tables, or row by row over the clients that touched the row."""
    weights = np.array([client.weight for client in cohort], np.float64)
    whole = {n: np.array([c.whole(n) for c in cohort], np.float64) for n in SHAPES}
    result = {name: rule(values, weights) for name, values in whole.items()}
    if aggregation == "touched_clients":
        for row in range(NUM_ITEMS):
            touched = [place for place, client in enumerate(cohort) if row in client.rows]
            for name in TABLES:
                values_here = whole[name][touched, row]
                result[name][row] = rule(values_here, weights[touched]) if touched else 0.0
    return {name: value.astype(np.float32) for name, value in result.items()}


def plain_krum_rule(name: str, values: Array, weights: Array, vectors: Array) -> Array:
    """Combine the values of the clients selected by their vectors; both have shape (n, ...)."""
    count = len(values)
    is_bulyan = name.startswith("bulyan")
    num_malicious = num_tolerated(count, SHARE, 4 if is_bulyan else 2)
    size = {"krum": 1, "multi_krum": count - num_malicious}.get(name, count - 2 * num_malicious)
    choose = lowest_scores_recursively if name == "bulyan_recursive" else lowest_scores
    best = choose(vectors, num_malicious, size)
    if is_bulyan:
        return near_the_median(values[best], count - 4 * num_malicious)
    return np.asarray(np.average(values[best], axis=0, weights=weights[best]))


def plain_krum_rules(name: str, cohort: Sequence[Client], aggregation: Aggregation) -> Tensors:
    weights = np.array([client.weight for client in cohort], np.float64)
    whole = {n: np.array([c.whole(n) for c in cohort], np.float64) for n in SHAPES}
    flat = {n: values.reshape(len(cohort), -1) for n, values in whole.items()}
    if aggregation == "all_clients":
        vectors = np.concatenate(list(flat.values()), axis=1)
        return {n: plain_krum_rule(name, v, weights, vectors) for n, v in whole.items()}  # type: ignore[misc]  # float64 is what a reference is made of
    result = {n: np.zeros(SHAPES[n]) for n in TABLES}
    result["dense"] = plain_krum_rule(name, whole["dense"], weights, flat["dense"])
    for row in range(NUM_ITEMS):
        touched = [place for place, client in enumerate(cohort) if row in client.rows]
        if touched:
            values_here = {n: whole[n][touched, row].reshape(len(touched), -1) for n in TABLES}
            vectors = np.concatenate(list(values_here.values()), axis=1)
            for n in TABLES:
                value = plain_krum_rule(name, values_here[n], weights[touched], vectors)
                result[n][row] = value.reshape(SHAPES[n][1:])
    return result  # type: ignore[return-value]  # float64 is what a reference is made of
