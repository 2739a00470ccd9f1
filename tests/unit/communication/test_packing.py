"""Packing: an update without untouched rows is equal and has fewer bytes."""

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.communication.packing import ROWS, Cost, add_packed, pack
from fedrec_flower.core.types import Arrays, Sums
from fedrec_flower.core.updates import ROW_WEIGHT

NUM_ITEMS, HEADER = 40, 128
TABLES = ["table", "bias", ROW_WEIGHT]
EVERY_ROW = list(range(NUM_ITEMS))


def update(rows: list[int], seed: int = 0) -> Arrays:
    """Return a sum of updates that touches only these rows."""
    rng = np.random.default_rng(seed)
    table = np.zeros((NUM_ITEMS, 3), np.float32)
    bias, weight = np.zeros((NUM_ITEMS, 1), np.float32), np.zeros(NUM_ITEMS)
    table[rows], bias[rows] = rng.normal(size=(len(rows), 3)), rng.normal(size=(len(rows), 1))
    weight[rows] = rng.integers(1, 100, len(rows))
    dense = rng.normal(size=(2, 2)).astype(np.float32)
    return {"table": table, "dense": dense, "bias": bias, ROW_WEIGHT: weight}


def serialized(arrays: Arrays) -> int:
    """Return the bytes of the arrays in a Flower message."""
    return sum(len(Array(array).data) for array in arrays.values())


def same_bits(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


touched = st.lists(st.integers(0, NUM_ITEMS - 1), unique=True).map(sorted)


@given(st.lists(touched, min_size=1, max_size=4))
def test_sum_of_packed_updates_equals_sum_of_whole_updates_to_the_bit(
    cohort: list[list[int]],
) -> None:
    packed_sum, whole_sum = Sums(), Sums()
    for place, rows in enumerate(cohort):
        whole = update(rows, seed=place)
        add_packed(packed_sum, *pack(whole, TABLES))
        add_packed(whole_sum, whole, {})
    assert packed_sum.keys() == whole_sum.keys()
    assert all(same_bits(packed_sum[name], value) for name, value in whole_sum.items())


@pytest.mark.parametrize("rows", [[], [0], [NUM_ITEMS - 1], EVERY_ROW])
def test_packing_round_trip_of_no_row_one_row_and_all_rows(rows: list[int]) -> None:
    total, whole = Sums(), update(rows)
    add_packed(total, *pack(whole, TABLES))
    for name, value in whole.items():
        assert_array_equal(total[name], value)


@given(touched)
def test_cost_equals_the_packed_bytes_and_never_exceeds_whole_tables(rows: list[int]) -> None:
    whole = update(rows)
    packed, _ = pack(whole, TABLES)
    assert serialized(packed) == Cost.of(whole, TABLES).least(np.array([len(rows)])).item()
    assert serialized(packed) <= serialized(whole)


def test_cost_counts_values_codes_and_headers() -> None:
    cost = Cost.of(update([]), TABLES)
    row = 3 * 4 + 4 + 8  # three floats, a float, a float64
    assert cost.whole == 4 * HEADER + 2 * 2 * 4 + NUM_ITEMS * row
    assert cost.touched(np.array([7])).item() == 5 * HEADER + 2 * 2 * 4 + 7 * (row + 4)


def test_pack_removes_untouched_rows_only_if_few_are_touched() -> None:
    few, num_rows = pack(update([3, 8]), TABLES)
    assert few[ROWS].tolist() == [3, 8]
    assert few[ROWS].dtype == np.int32
    assert len(few["table"]) == len(few["bias"]) == len(few[ROW_WEIGHT]) == 2
    assert few["dense"].shape == (2, 2)
    assert num_rows == dict.fromkeys(TABLES, NUM_ITEMS)
    assert pack(update(EVERY_ROW), TABLES)[1] == {}


def test_pack_keeps_tables_without_row_weights_whole() -> None:
    statistics: Arrays = {"table": np.ones((NUM_ITEMS, 3), np.float32), ROW_WEIGHT: np.zeros(0)}
    assert pack(statistics, TABLES[::2]) == (statistics, {})
    assert pack({}, []) == ({}, {})


def test_cost_from_shapes_equals_cost_of_arrays() -> None:
    arrays = update(EVERY_ROW)
    shapes = {name: array.shape for name, array in arrays.items() if name != ROW_WEIGHT}
    assert Cost.from_shapes(shapes, {"table", "bias"}, NUM_ITEMS) == Cost.of(arrays, TABLES)
    assert Cost.from_shapes({}, set(), NUM_ITEMS) == Cost.of(
        {ROW_WEIGHT: arrays[ROW_WEIGHT]}, [ROW_WEIGHT]
    )
