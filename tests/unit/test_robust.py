"""Robust rules against plain loops over whole tables, and what a few liars can do to them."""

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Protocol

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.aggregation import (
    PerRow,
    Shapes,
    Updates,
    UpdateSum,
    bulyan,
    krum,
    mean_over_all_clients,
    mean_over_touching_clients,
    median,
    multi_krum,
    norm_bound,
    trimmed_mean,
)
from fedrec_flower.aggregation.elections import tolerated
from tests.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, cohorts, updates

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
    "krum": partial(krum, liars=SHARE),
    "multi_krum": partial(multi_krum, liars=SHARE),
    "bulyan": partial(bulyan, liars=SHARE),
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


# --- plain references: (n, ...) values and (n,) weights to what holds -----------------------------


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
    liars = tolerated(count, SHARE, 4 if name == "bulyan" else 2)
    size = {"krum": 1, "multi_krum": count - liars, "bulyan": count - 2 * liars}[name]
    best = elected(vectors, liars, size)
    if name == "bulyan":
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


# --- laws -----------------------------------------------------------------------------------------


def same(ours: Tensors, theirs: Tensors) -> None:
    assert set(ours) == set(theirs) == set(SHAPES)
    for name, value in ours.items():
        assert value.dtype == np.float32
        assert value.shape == SHAPES[name]
        assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-6)


@EVERY_HOW
@given(cohort=COHORTS)
def test_the_median_is_numpys_over_whole_tables(cohort: list[Client], per_row: PerRow) -> None:
    same(combined(median, cohort, per_row), plain_coordinatewise(cohort, per_row, plain_median))


@EVERY_HOW
@given(cohort=COHORTS)
def test_the_trimmed_mean_is_that_of_a_plain_loop(cohort: list[Client], per_row: PerRow) -> None:
    ours = combined(RULES["trimmed_mean"], cohort, per_row)
    same(ours, plain_coordinatewise(cohort, per_row, plain_trimmed))


@EVERY_HOW
@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan"])
@given(cohort=COHORTS)
def test_an_election_is_that_of_a_plain_loop(
    cohort: list[Client], name: str, per_row: PerRow
) -> None:
    same(combined(RULES[name], cohort, per_row), plain_elections(name, cohort, per_row))


@EVERY_HOW
@given(cohort=COHORTS, bound=st.one_of(st.none(), st.floats(0.1, 10)))
def test_bounded_norms_average_updates_cut_to_length(
    cohort: list[Client], bound: float | None, per_row: PerRow
) -> None:
    norms = [np.sqrt(sum((c.whole(n) ** 2).sum() for n in SHAPES)) for c in cohort]
    limit = float(np.median(norms)) if bound is None else bound
    scales = [min(1.0, limit / norm) for norm in norms]
    short = [
        Client(c.weight, c.rows, c.seed, scale) for c, scale in zip(cohort, scales, strict=True)
    ]
    same(combined(partial(norm_bound, bound=bound), cohort, per_row), fedavg(short, per_row))


@EVERY_HOW
@pytest.mark.parametrize(
    "rule",
    [
        partial(trimmed_mean, trim=0.0),
        partial(multi_krum, liars=0.0),
        partial(norm_bound, bound=1e9),
    ],
    ids=["nothing trimmed", "no liars", "no bound"],
)
@given(cohort=COHORTS)
def test_what_leaves_nobody_out_is_fedavg(
    cohort: list[Client], rule: Rule, per_row: PerRow
) -> None:
    same(combined(rule, cohort, per_row), fedavg(cohort, per_row))


@EVERY_HOW
@EVERY_RULE
@given(cohort=COHORTS, random=st.randoms())
def test_the_order_of_the_clients_does_not_matter(
    cohort: list[Client], random: Random, name: str, per_row: PerRow
) -> None:
    order = np.array(random.sample(range(len(cohort)), len(cohort)))
    given_ = updates(cohort)
    same(
        RULES[name](given_.select(order, TABLES), SHAPES, TABLES, per_row),
        RULES[name](given_, SHAPES, TABLES, per_row),
    )


EVERYWHERE = list(range(NUM_ITEMS))


@EVERY_HOW
@pytest.mark.parametrize("name", sorted(set(RULES) - {"norm_bound"}))
@given(
    seeds=st.sets(st.integers(0, 2**32), min_size=11, max_size=11).map(sorted),
    size=st.sampled_from([1e3, -1e9, 1e30]),
)
def test_a_tolerated_number_of_huge_liars_cannot_leave_the_honest_range(
    seeds: list[int], size: float, name: str, per_row: PerRow
) -> None:
    # 2 of 11: what bulyan tolerates, 4 * 2 + 3.
    honest = [Client(5, EVERYWHERE, seed) for seed in seeds[2:]]
    liars = [Client(50, EVERYWHERE, seed, size) for seed in seeds[:2]]
    result = combined(RULES[name], [*liars, *honest], per_row)
    for tensor, value in result.items():
        said = np.array([client.whole(tensor) for client in honest])
        assert (value >= said.min(axis=0) - 1e-5).all()
        assert (value <= said.max(axis=0) + 1e-5).all()


@EVERY_HOW
def test_without_a_rule_one_huge_liar_decides(per_row: PerRow) -> None:
    cohort = [Client(5, EVERYWHERE, seed) for seed in range(10)]
    moved = fedavg([*cohort, Client(5, EVERYWHERE, 10, 1e6)], per_row)
    assert np.abs(moved["table"]).min() > 10


@EVERY_HOW
@given(size=st.sampled_from([1e3, 1e9, 1e18]))
def test_under_a_bound_a_liar_moves_no_further_than_its_share_of_it(
    size: float, per_row: PerRow
) -> None:
    cohort = [Client(5, EVERYWHERE, seed) for seed in range(9)]
    bounded = partial(norm_bound, bound=0.5)
    honest = combined(bounded, [*cohort, Client(5, EVERYWHERE, 10, 0.0)], per_row)
    attacked = combined(bounded, [*cohort, Client(5, EVERYWHERE, 10, size)], per_row)
    moved = sum(float(((attacked[n] - honest[n]) ** 2).sum()) for n in SHAPES) ** 0.5
    assert moved == pytest.approx(0.5 / 10, rel=1e-4)


@EVERY_HOW
@EVERY_RULE
def test_rows_that_nobody_touched_stay(name: str, per_row: PerRow) -> None:
    result = combined(RULES[name], [Client(3, [1, 4], s) for s in range(3)], per_row)
    assert_array_equal(np.flatnonzero(result["table"].any(axis=1)), [1, 4])


@EVERY_RULE
def test_where_everybody_touches_everything_touching_clients_are_all_clients(name: str) -> None:
    cohort = [Client(seed + 1, EVERYWHERE, seed) for seed in range(9)]
    given_ = updates(cohort)
    dense = given_.tensors["dense"].reshape(9, 4)
    # One item row, so that an election by rows is one by whole updates.
    one = Updates(
        given_.clients, given_.weights, np.arange(10), np.zeros(9, np.int64), {"table": dense}
    )
    shapes = {"table": (1, 4)}
    every, touching = (
        RULES[name](one, shapes, ["table"], how) for how in ("all_clients", "touched_clients")
    )
    assert_allclose(every["table"], touching["table"], rtol=1e-6)


@EVERY_HOW
@EVERY_RULE
def test_a_single_client_is_heard_unchanged(name: str, per_row: PerRow) -> None:
    alone = Client(7, [0, 2], 3)
    result = combined(RULES[name], [alone], per_row)
    for tensor, value in result.items():
        assert_allclose(value, alone.whole(tensor), rtol=1e-6)


def test_liars_are_counted_by_share_and_never_more_than_can_be_outvoted() -> None:
    assert tolerated(100, 0.29, 2) == 29
    assert tolerated(10, 0.2, 4) == (10 - 3) // 4
    assert tolerated(2, 0.4, 2) == 0
