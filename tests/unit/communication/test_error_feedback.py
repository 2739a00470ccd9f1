"""Error feedback: the compression error is delayed, not lost."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.communication.compression.base import Compression
from fedrec_flower.communication.compression.error_feedback import compress_with_feedback
from fedrec_flower.communication.compression.top_k import TopK
from fedrec_flower.core.types import Sums
from fedrec_flower.core.updates import Updates
from tests.helpers.compressing import (
    COMPRESSIONS,
    EVERY_ROW,
    NUM_ITEMS,
    SHAPES,
    TABLES,
    Residuals,
    add_whole,
    cohort,
    rng_for,
    touched,
)

WITH_FEEDBACK = [name for name, one in COMPRESSIONS.items() if one.uses_error_feedback]
rounds = st.lists(st.tuples(touched, touched), min_size=1, max_size=4)


def send(compression: Compression, updates: Updates, residuals: Residuals) -> Updates:
    return compress_with_feedback(compression, updates, TABLES, rng_for, residuals)[0]


def test_biased_compressions_use_error_feedback() -> None:
    assert WITH_FEEDBACK == ["topk", "topk_few", "lowrank"]


@pytest.mark.parametrize("name", WITH_FEEDBACK)
@given(drawn=rounds)
def test_sent_values_plus_residuals_equal_the_sum_of_updates(
    name: str, drawn: list[tuple[list[int], list[int]]]
) -> None:
    residuals = Residuals(2)
    total, sent = Sums(), Sums()
    for seed, rows in enumerate(drawn):
        updates = cohort(rows, seed)
        add_whole(total, updates)
        add_whole(sent, send(COMPRESSIONS[name], updates, residuals))
    for tensor in SHAPES:
        assert_allclose(sent[tensor] + residuals.whole[tensor], total[tensor], atol=1e-5)


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_residual_of_untouched_rows_is_unchanged(name: str) -> None:
    residuals = Residuals(1)
    send(COMPRESSIONS[name], cohort([EVERY_ROW]), residuals)
    before = residuals.whole["table"].copy()
    send(COMPRESSIONS[name], cohort([[3, 4, 5, 6, 7, 8, 9]], seed=1), residuals)
    changed = np.flatnonzero((residuals.whole["table"] != before).any(axis=(0, 2, 3)))
    assert changed.tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_small_entries_arrive_only_with_error_feedback() -> None:
    updates, num_rounds = cohort([EVERY_ROW]), 200
    updates.tensors["table"][:10] *= 10  # these entries are always the largest
    arrived = {}
    for feedback in (True, False):
        compression = TopK(NUM_ITEMS, 0.1, error_feedback=feedback)
        residuals = Residuals(1)
        total = Sums()
        for _ in range(num_rounds):
            add_whole(total, send(compression, updates, residuals))
        arrived[feedback] = total["table"][0] / num_rounds
    assert_allclose(arrived[True], updates.tensors["table"], atol=1.0)
    assert np.count_nonzero(arrived[False][10:]) == 0
    assert np.count_nonzero(arrived[True][10:]) > 0.9 * arrived[True][10:].size


@pytest.mark.parametrize("name", [name for name in COMPRESSIONS if name not in WITH_FEEDBACK])
def test_compression_without_feedback_stores_no_residual(name: str) -> None:
    residuals, updates = Residuals(1), cohort([EVERY_ROW])
    plain, num_bytes = COMPRESSIONS[name].compress(updates, TABLES, rng_for)
    sent, same_bytes = compress_with_feedback(
        COMPRESSIONS[name], updates, TABLES, rng_for, residuals
    )
    assert_array_equal(num_bytes, same_bytes)
    for tensor in SHAPES:
        assert_array_equal(sent.tensors[tensor], plain.tensors[tensor])
        assert not residuals.whole[tensor].any()


@pytest.mark.parametrize("name", WITH_FEEDBACK)
def test_residual_drops_values_that_are_not_finite(name: str) -> None:
    residuals, updates = Residuals(1), cohort([EVERY_ROW])
    broken = {n: np.full_like(array, np.inf) for n, array in updates.tensors.items()}
    sent = send(COMPRESSIONS[name], replace(updates, tensors=broken), residuals)
    assert not np.isfinite(sent.tensors["table"]).all()
    again = send(COMPRESSIONS[name], updates, residuals)
    assert all(np.isfinite(array).all() for array in again.tensors.values())
