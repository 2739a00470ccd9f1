"""Error feedback: nothing is lost, it only comes later."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.communication.compression.base import Compression
from fedrec_flower.communication.compression.error_feedback import compress_with_feedback
from fedrec_flower.communication.compression.top_k import TopK
from fedrec_flower.communication.packing import Sums
from fedrec_flower.core.updates import Updates
from tests.helpers.compressing import (
    COMPRESSIONS,
    EVERY_ROW,
    NUM_ITEMS,
    SHAPES,
    TABLES,
    Debts,
    add_whole,
    cohort,
    rng_for,
    touched,
)

REMEMBERING = [name for name, one in COMPRESSIONS.items() if one.remembers]
rounds = st.lists(st.tuples(touched, touched), min_size=1, max_size=4)


def send(compression: Compression, updates: Updates, debts: Debts) -> Updates:
    return compress_with_feedback(compression, updates, TABLES, rng_for, debts)[0]


def test_those_remember_that_lose_something_for_good() -> None:
    assert REMEMBERING == ["topk", "topk_few", "lowrank"]


@pytest.mark.parametrize("name", REMEMBERING)
@given(drawn=rounds)
def test_what_was_sent_and_what_is_owed_are_all_updates(
    name: str, drawn: list[tuple[list[int], list[int]]]
) -> None:
    debts = Debts(2)
    learnt, sent = Sums(), Sums()
    for seed, rows in enumerate(drawn):
        updates = cohort(rows, seed)
        add_whole(learnt, updates)
        add_whole(sent, send(COMPRESSIONS[name], updates, debts))
    for tensor in SHAPES:
        assert_allclose(sent[tensor] + debts.whole[tensor], learnt[tensor], atol=1e-5)


@pytest.mark.parametrize("name", REMEMBERING)
def test_a_debt_in_rows_not_touched_waits(name: str) -> None:
    debts = Debts(1)
    send(COMPRESSIONS[name], cohort([EVERY_ROW]), debts)
    before = debts.whole["table"].copy()
    send(COMPRESSIONS[name], cohort([[3, 4, 5, 6, 7, 8, 9]], seed=1), debts)
    changed = np.flatnonzero((debts.whole["table"] != before).any(axis=(0, 2, 3)))
    assert changed.tolist() == [3, 4, 5, 6, 7, 8, 9]


def test_what_is_always_asked_for_comes_in_the_end_with_feedback_and_never_without() -> None:
    updates, many = cohort([EVERY_ROW]), 200
    updates.tensors["table"][:10] *= 10  # they would always be the largest
    arrived = {}
    for remembers in (True, False):
        compression, debts = TopK(NUM_ITEMS, 0.1, error_feedback=remembers), Debts(1)
        total = Sums()
        for _ in range(many):
            add_whole(total, send(compression, updates, debts))
        arrived[remembers] = total["table"][0] / many
    assert_allclose(arrived[True], updates.tensors["table"], atol=1.0)
    assert np.count_nonzero(arrived[False][10:]) == 0
    assert np.count_nonzero(arrived[True][10:]) > 0.9 * arrived[True][10:].size


@pytest.mark.parametrize("name", [name for name in COMPRESSIONS if name not in REMEMBERING])
def test_who_does_not_remember_owes_nothing(name: str) -> None:
    debts, updates = Debts(1), cohort([EVERY_ROW])
    plain, num_bytes = COMPRESSIONS[name].compress(updates, TABLES, rng_for)
    sent, same_bytes = compress_with_feedback(COMPRESSIONS[name], updates, TABLES, rng_for, debts)
    assert_array_equal(num_bytes, same_bytes)
    for tensor in SHAPES:
        assert_array_equal(sent.tensors[tensor], plain.tensors[tensor])
        assert not debts.whole[tensor].any()


@pytest.mark.parametrize("name", REMEMBERING)
def test_what_is_not_finite_is_not_owed_for_ever(name: str) -> None:
    debts, updates = Debts(1), cohort([EVERY_ROW])
    broken = {n: np.full_like(array, np.inf) for n, array in updates.tensors.items()}
    sent = send(COMPRESSIONS[name], replace(updates, tensors=broken), debts)
    assert not np.isfinite(sent.tensors["table"]).all()
    again = send(COMPRESSIONS[name], updates, debts)
    assert all(np.isfinite(array).all() for array in again.tensors.values())
