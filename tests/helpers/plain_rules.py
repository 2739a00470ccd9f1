"""Robust rules by plain loops over clients, and cohorts to try them on."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import numpy as np
import pytest
from numpy.typing import NDArray

from fedrec_flower.core.updates import (
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.strategies.aggregators.krum import bulyan, krum, multi_krum, num_tolerated
from fedrec_flower.strategies.aggregators.robust import (
    PerRow,
    Shapes,
    median,
    norm_bound,
    trimmed_mean,
)
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, cohorts, updates

Array = NDArray[np.float64]
Tensors = dict[str, NDArray[np.float32]]
EVERY_HOW = pytest.mark.parametrize("per_row", ["all_clients", "touched_clients"])
COHORTS = cohorts(least=1, most=12)
SHARE = 0.2  # of liars, and cut at each end


class Rule(Protocol):
    """A rule with its own knobs bound."""

    def __call__(
        self, updates: Updates, shapes: Shapes, tables: Sequence[str], per_row: PerRow
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


def combined(rule: Rule, cohort: Sequence[Client], per_row: PerRow) -> Tensors:
    return rule(updates(cohort), SHAPES, TABLES, per_row)


def fedavg(cohort: Sequence[Client], per_row: PerRow) -> Tensors:
    total = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    total.add(updates(cohort), TABLES)
    if per_row == "all_clients":
        return mean_over_all_clients(total)
    return mean_over_touching_clients(total, TABLES)


def plain_median(values: Array, weights: Array) -> Array:
    del weights
    return np.median(values, axis=0)


def plain_trimmed(values: Array, weights: Array) -> Array:
    """Of values that tie at the cut, each keeps the same part of its weight."""
    count, kept = len(values), np.zeros(values.shape[1:])
    cut = int(SHARE * count)
    for place in np.ndindex(kept.shape):
        said = values[(slice(None), *place)]
        total = weight = 0.0
        for value in np.unique(said):
            alike, below = said == value, int((said < value).sum())
            ranks = np.arange(below, below + alike.sum())
            share = np.mean((ranks >= cut) & (ranks < count - cut)) * weights[alike].sum()
            total, weight = total + share * value, weight + share
        kept[place] = total / weight
    return kept


def scores(vectors: Array, liars: int) -> Array:
    count = len(vectors)
    distances = ((vectors[:, None] - vectors[None]) ** 2).sum(axis=-1)
    others = [np.sort(np.delete(distances[i], i)) for i in range(count)]
    return np.array([near[: max(1, count - liars - 2)].sum() for near in others])


def elected(vectors: Array, liars: int, count: int) -> list[int]:
    best: list[int] = np.argsort(scores(vectors, liars), kind="stable")[:count].tolist()
    return best


def elected_one_by_one(vectors: Array, liars: int, count: int) -> list[int]:
    """El Mhamdi et al. 2018, section 4: Krum among the remaining ones, until enough are chosen."""
    remaining, chosen = list(range(len(vectors))), list[int]()
    while len(chosen) < count:
        best = int(np.argmin(scores(vectors[remaining], liars)))
        chosen.append(remaining.pop(best))
    return chosen


def near_the_median(values: Array, count: int) -> Array:
    rising = np.sort(values, axis=0)  # of two that are equally near, the lower
    order = np.argsort(np.abs(rising - np.median(values, axis=0)), axis=0, kind="stable")[:count]
    return np.asarray(np.take_along_axis(rising, order, axis=0).mean(axis=0))


Plain = Callable[[Array, Array], Array]


def plain_coordinatewise(cohort: Sequence[Client], per_row: PerRow, rule: Plain) -> Tensors:
    """The rule over whole tables, or row by row over the clients that touched it."""
    weights = np.array([client.weight for client in cohort], np.float64)
    whole = {n: np.array([c.whole(n) for c in cohort], np.float64) for n in SHAPES}
    result = {name: rule(values, weights) for name, values in whole.items()}
    if per_row == "touched_clients":
        for row in range(NUM_ITEMS):
            touched = [place for place, client in enumerate(cohort) if row in client.rows]
            for name in TABLES:
                said = whole[name][touched, row]
                result[name][row] = rule(said, weights[touched]) if touched else 0.0
    return {name: value.astype(np.float32) for name, value in result.items()}


def plain_election(name: str, values: Array, weights: Array, vectors: Array) -> Array:
    """What a rule makes of values, elected by vectors: both (n, ...)."""
    count = len(values)
    is_bulyan = name.startswith("bulyan")
    liars = num_tolerated(count, SHARE, 4 if is_bulyan else 2)
    size = {"krum": 1, "multi_krum": count - liars}.get(name, count - 2 * liars)
    choose = elected_one_by_one if name == "bulyan_recursive" else elected
    best = choose(vectors, liars, size)
    if is_bulyan:
        return near_the_median(values[best], count - 4 * liars)
    return np.asarray(np.average(values[best], axis=0, weights=weights[best]))


def plain_elections(name: str, cohort: Sequence[Client], per_row: PerRow) -> Tensors:
    weights = np.array([client.weight for client in cohort], np.float64)
    whole = {n: np.array([c.whole(n) for c in cohort], np.float64) for n in SHAPES}
    flat = {n: values.reshape(len(cohort), -1) for n, values in whole.items()}
    if per_row == "all_clients":
        vectors = np.concatenate(list(flat.values()), axis=1)
        return {n: plain_election(name, v, weights, vectors) for n, v in whole.items()}  # type: ignore[misc]  # float64 is what a reference is made of
    result = {n: np.zeros(SHAPES[n]) for n in TABLES}
    result["dense"] = plain_election(name, whole["dense"], weights, flat["dense"])
    for row in range(NUM_ITEMS):
        touched = [place for place, client in enumerate(cohort) if row in client.rows]
        if touched:
            said = {n: whole[n][touched, row].reshape(len(touched), -1) for n in TABLES}
            vectors = np.concatenate(list(said.values()), axis=1)
            for n in TABLES:
                value = plain_election(name, said[n], weights[touched], vectors)
                result[n][row] = value.reshape(SHAPES[n][1:])
    return result  # type: ignore[return-value]  # float64 is what a reference is made of
