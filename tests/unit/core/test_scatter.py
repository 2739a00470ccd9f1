"""Scatter-add and gather-subtract of rows, against NumPy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import DTypeLike

from fedrec_flower.core.scatter import gather_subtract_rows, scatter_add_rows

WIDTHS = pytest.mark.parametrize("width", [(), (1,), (3,), (2, 2)])


@WIDTHS
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(rows=st.lists(st.integers(0, 4), max_size=12), seed=st.integers(0, 9))
def test_scatter_add_rows_equals_a_loop(
    width: tuple[int, ...], dtype: DTypeLike, rows: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(5, *width)).astype(dtype)
    values = rng.normal(size=(len(rows), *width)).astype(np.float32)
    scales = rng.normal(size=len(rows))
    index = np.array(rows, np.int64)
    same, each = table.copy(), table.copy()
    scatter_add_rows(same, index, values, -0.5)
    scatter_add_rows(each, index, values, scales)
    one_by_one, weighted = table.copy(), table.copy()
    np.add.at(one_by_one, index, -0.5 * values)
    np.add.at(weighted, index, scales.reshape(-1, *[1] * len(width)) * values)
    assert_allclose(same, one_by_one, rtol=1e-5, atol=1e-5)
    assert_allclose(each, weighted, rtol=1e-5, atol=1e-5)


@WIDTHS
def test_gather_subtract_rows_equals_indexing_and_subtracting(width: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    table = rng.normal(size=(5, *width)).astype(np.float32)
    values = rng.normal(size=(7, *width)).astype(np.float32)
    rows = rng.integers(0, 5, 7)
    expected = values - table[rows]
    gather_subtract_rows(values, table, rows)
    assert_array_equal(values, expected)
