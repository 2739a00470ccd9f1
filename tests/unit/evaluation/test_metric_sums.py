"""Sums and counts against numpy's mean and standard error."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fedrec_flower.evaluation.metric_sums import MetricSums

VALUES = st.lists(st.one_of(st.floats(0, 1), st.just(float("nan"))), max_size=8)


def summed(*batches: list[float]) -> MetricSums:
    sums = MetricSums()
    for batch in batches:
        sums.add({"hr@10": np.array(batch, np.float64)})
    return sums


@given(st.lists(VALUES, min_size=1, max_size=4))
def test_mean_and_standard_error_equal_numpy(batches: list[list[float]]) -> None:
    sums = summed(*batches)
    known = np.array([value for batch in batches for value in batch if not np.isnan(value)])
    assert sums.count["hr@10"] == len(known)
    if len(known):
        assert_allclose(sums.mean("hr@10"), known.mean(), atol=1e-12)
    if len(known) > 1:
        expected = known.std(ddof=1) / np.sqrt(len(known))
        assert_allclose(sums.standard_error("hr@10"), expected, atol=1e-7)


@given(VALUES, VALUES)
def test_merge_equals_the_sums_of_all_values(one: list[float], other: list[float]) -> None:
    merged, together = summed(one), summed(one + other)
    merged.merge(summed(other))
    for ours, theirs in zip(
        (merged.total, merged.squares, merged.count),
        (together.total, together.squares, together.count),
        strict=True,
    ):
        assert ours == pytest.approx(theirs)


def test_mean_without_values_is_nan() -> None:
    assert np.isnan(summed([]).mean("hr@10"))
    assert np.isnan(summed([0.5]).standard_error("hr@10"))


def test_standard_error_of_equal_values_is_0() -> None:
    assert summed([0.1] * 7).standard_error("hr@10") == pytest.approx(0, abs=1e-8)


def test_merge_keeps_a_metric_of_one_node() -> None:
    sums = MetricSums()
    sums.merge(summed([0.25, 0.75]))
    assert sums.mean("hr@10") == (0.25 + 0.75) / 2
