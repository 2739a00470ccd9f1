"""Aggregation against `np.average`, over all clients and over those that touched a row."""

from collections.abc import Sequence
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.updates import (
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
    weighted_mean,
)
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, cohorts, updates


def summed(cohort: Sequence[Client]) -> UpdateSum:
    total = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    if cohort:
        total.add(updates(cohort), TABLES)
    return total


def means(cohort: Sequence[Client]) -> list[dict[str, NDArray[np.float32]]]:
    total = summed(cohort)
    return [mean_over_all_clients(total), mean_over_touching_clients(total, TABLES)]


def average(cohort: Sequence[Client], name: str) -> NDArray[np.float64]:
    arrays = np.array([client.whole(name) for client in cohort], np.float64)
    weights = [client.weight for client in cohort]
    return np.asarray(np.average(arrays, axis=0, weights=weights))


@given(cohorts())
def test_weighted_mean_equals_numpys_average(cohort: list[Client]) -> None:
    whole = [{name: client.whole(name) for name in SHAPES} for client in cohort]
    mean = weighted_mean(whole, [client.weight for client in cohort])
    for name in SHAPES:
        assert mean[name].dtype == np.float32
        assert_allclose(mean[name], average(cohort, name), rtol=1e-6, atol=1e-7)


@given(cohorts())
def test_mean_over_all_clients_equals_numpys_average_of_whole_tables(
    cohort: list[Client],
) -> None:
    mean = mean_over_all_clients(summed(cohort))
    for name in SHAPES:
        assert_allclose(mean[name], average(cohort, name), rtol=1e-6, atol=1e-7)


@given(cohorts())
def test_mean_over_touching_clients_equals_numpys_average_per_row(cohort: list[Client]) -> None:
    mean = mean_over_touching_clients(summed(cohort), TABLES)
    for row in range(NUM_ITEMS):
        touching = [client for client in cohort if row in client.rows]
        for name in TABLES:
            expected = average(touching, name)[row] if touching else 0.0
            assert_allclose(mean[name][row], expected, rtol=1e-6, atol=1e-7)
    assert_allclose(mean["dense"], average(cohort, "dense"), rtol=1e-6, atol=1e-7)


@given(cohorts())
def test_both_means_are_equal_without_tables(cohort: list[Client]) -> None:
    touching, every = mean_over_touching_clients(summed(cohort), ()), means(cohort)[0]
    for name in SHAPES:
        assert_array_equal(touching[name], every[name])


@given(cohorts(), st.randoms())
def test_order_of_the_clients_does_not_change_the_mean(
    cohort: list[Client], random: Random
) -> None:
    shuffled = random.sample(cohort, len(cohort))
    for one, other in zip(means(cohort), means(shuffled), strict=True):
        for name in SHAPES:
            assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-7)


@given(st.lists(st.integers(1, 50), min_size=1, max_size=5), st.floats(-5, 5, width=32))
def test_mean_of_equal_updates_is_that_update(weights: list[int], value: float) -> None:
    agreed = [{"dense": np.full((2, 2), value, np.float32)} for _ in weights]
    assert_allclose(weighted_mean(agreed, weights)["dense"], value, rtol=1e-6)


def test_mean_of_untouched_rows_is_zero() -> None:
    for mean in means([Client(3, [1, 4], 0), Client(2, [4], 1)]):
        assert_array_equal(np.flatnonzero(mean["table"].any(axis=1)), [1, 4])


def test_sum_has_the_weight_of_every_row() -> None:
    total = summed([Client(3, [1, 4], 0), Client(2, [4], 1)])
    assert total.weight == 3 + 2
    assert total.row_weight.tolist() == [0, 3, 0, 0, 3 + 2, 0]


def test_sum_of_thousands_of_small_updates_is_exact() -> None:
    tiny = {"dense": np.full((2, 2), 1e-4, np.float32)}
    big = {"dense": np.full((2, 2), 1e4, np.float32)}
    mean = weighted_mean([big, *[tiny] * 5000], [1.0] * 5001)
    assert_allclose(mean["dense"], (1e4 + 5000 * 1e-4) / 5001, rtol=1e-6)


def test_mean_without_clients_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one client"):
        weighted_mean([], [])


def test_mean_with_zero_weights_is_an_error() -> None:
    with pytest.raises(ValueError, match="more than zero"):
        weighted_mean([{"dense": np.ones(2, np.float32)}], [0.0])
    with pytest.raises(ValueError, match="more than zero"):
        mean_over_touching_clients(UpdateSum.zeros(SHAPES, NUM_ITEMS), TABLES)


def test_weight_without_a_client_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        weighted_mean([{"dense": np.ones(2, np.float32)}], [1.0, 2.0])
