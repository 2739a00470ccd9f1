"""Aggregation against `np.average`, over all clients and over those that touched a row."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.aggregation import (
    Update,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
    merge,
    weighted_mean,
)

NUM_ITEMS = 6
SHAPES = {"table": (NUM_ITEMS, 3), "bias": (NUM_ITEMS,), "dense": (2, 2)}
TABLES = ("table", "bias")


@st.composite
def cohorts(draw: st.DrawFn) -> list[Update]:
    """One to five clients, each with its weight, its rows and its values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    touched = st.sets(st.integers(0, NUM_ITEMS - 1))
    cohort = draw(st.lists(st.tuples(st.integers(1, 50), touched), min_size=1, max_size=5))
    return [
        update(client, weight, sorted(rows), rng) for client, (weight, rows) in enumerate(cohort)
    ]


def update(client: int, weight: int, rows: list[int], rng: np.random.Generator) -> Update:
    """An update with random values in the given rows."""
    shapes = {"table": (len(rows), 3), "bias": (len(rows),), "dense": (2, 2)}
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return Update(client, weight, np.array(rows, np.int64), tensors)


def whole(one: Update, name: str) -> NDArray[np.float64]:
    """An update at its full shape: zero where the client touched nothing."""
    full = np.zeros(SHAPES[name])
    full[one.rows if name in TABLES else ...] = one.tensors[name]
    return full


def summed(cohort: Sequence[Update]) -> UpdateSum:
    total = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    for one in cohort:
        total.add(one, TABLES)
    return total


def plain(cohort: Sequence[Update]) -> list[dict[str, NDArray[np.float32]]]:
    return [{name: whole(one, name).astype(np.float32) for name in SHAPES} for one in cohort]


@given(cohorts())
def test_weighted_mean_equals_numpys_average(cohort: list[Update]) -> None:
    weights = [one.weight for one in cohort]
    mean = weighted_mean(plain(cohort), weights)
    for name in SHAPES:
        expected = np.average([whole(one, name) for one in cohort], axis=0, weights=weights)
        assert mean[name].dtype == np.float32
        assert_allclose(mean[name], expected, rtol=1e-6, atol=1e-7)


@given(cohorts(), st.randoms())
def test_the_order_of_the_clients_does_not_matter(cohort: list[Update], random: Random) -> None:
    shuffled = random.sample(cohort, len(cohort))
    for one, other in zip(means(cohort), means(shuffled), strict=True):
        for name in SHAPES:
            assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-7)


def means(cohort: Sequence[Update]) -> tuple[dict[str, NDArray[np.float32]], ...]:
    total = summed(cohort)
    return mean_over_all_clients(total), mean_over_touching_clients(total, TABLES)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.floats(-5, 5, width=32))
def test_clients_that_agree_are_heard_unchanged(weights: list[int], value: float) -> None:
    updates = [{"dense": np.full((2, 2), value, np.float32)} for _ in weights]
    assert_allclose(weighted_mean(updates, weights)["dense"], value, rtol=1e-6)


@given(cohorts())
def test_the_mean_over_all_clients_equals_numpys_average_of_whole_tables(
    cohort: list[Update],
) -> None:
    mean = mean_over_all_clients(summed(cohort))
    for name in SHAPES:
        arrays, weights = [whole(one, name) for one in cohort], [one.weight for one in cohort]
        assert_allclose(mean[name], np.average(arrays, axis=0, weights=weights), 1e-6, 1e-7)


@given(cohorts())
def test_a_row_is_the_average_of_the_clients_that_touched_it(cohort: list[Update]) -> None:
    mean = mean_over_touching_clients(summed(cohort), TABLES)
    for row in range(NUM_ITEMS):
        touching = [one for one in cohort if row in one.rows]
        for name in TABLES:
            rows = [whole(one, name)[row] for one in touching]
            weights = [one.weight for one in touching]
            expected = np.average(rows, axis=0, weights=weights) if touching else 0.0
            assert_allclose(mean[name][row], expected, rtol=1e-6, atol=1e-7)


@given(cohorts())
def test_without_tables_touching_clients_are_all_clients(cohort: list[Update]) -> None:
    touching, every = (mean_over_touching_clients(summed(cohort), ()), means(cohort)[0])
    for name in SHAPES:
        assert_array_equal(touching[name], every[name])


def test_rows_that_nobody_touched_stay() -> None:
    rng = np.random.default_rng(0)
    for mean in means([update(0, 3, [1, 4], rng), update(1, 2, [4], rng)]):
        assert_array_equal(np.flatnonzero(mean["table"].any(axis=1)), [1, 4])


@given(cohorts(), st.data())
def test_the_sums_of_nodes_add_up_to_the_sum_over_all_clients(
    cohort: list[Update], drawn: st.DataObject
) -> None:
    cut = drawn.draw(st.integers(0, len(cohort)))
    merged, total = merge([summed(cohort[:cut]), summed(cohort[cut:])]), summed(cohort)
    assert merged.weight == total.weight
    assert_array_equal(merged.row_weight, total.row_weight)
    for name in SHAPES:
        assert_allclose(merged.tensors[name], total.tensors[name], rtol=1e-12, atol=1e-12)


def test_thousands_of_small_updates_lose_no_bits() -> None:
    tiny = {"dense": np.full((2, 2), 1e-4, np.float32)}
    big = {"dense": np.full((2, 2), 1e4, np.float32)}
    mean = weighted_mean([big, *[tiny] * 5000], [1.0] * 5001)
    assert_allclose(mean["dense"], (1e4 + 5000 * 1e-4) / 5001, rtol=1e-6)


def test_an_average_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one client"):
        weighted_mean([], [])


def test_zero_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="more than zero"):
        weighted_mean([{"dense": np.ones(2, np.float32)}], [0.0])
    with pytest.raises(ValueError, match="more than zero"):
        mean_over_touching_clients(UpdateSum.zeros(SHAPES, NUM_ITEMS), TABLES)


def test_a_client_without_a_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        weighted_mean([{"dense": np.ones(2, np.float32)}], [1.0, 2.0])
