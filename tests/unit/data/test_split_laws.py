"""Laws of every split: nothing is lost, the past trains, the file order does not matter."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chi2

from fedrec_flower.data.interactions import Ids, Interactions, Part
from fedrec_flower.data.splits.base import Splitter, least_history, num_held_out
from fedrec_flower.data.splits.leave_one_out import LeaveLastFraction, LeaveOneOut
from fedrec_flower.data.splits.random import Random
from fedrec_flower.data.splits.temporal import Temporal
from tests.helpers.splitting import (
    COLD_ITEMS,
    COLD_USERS,
    LAST,
    ONE_OUT,
    OVERALL,
    PER_USER,
    TEMPORAL,
    TEST,
    TRAIN,
    VALIDATION,
    history,
    interactions,
)


def all_tied(user_ids: Ids, item_ids: Ids) -> Interactions:
    """Every user touched every item, all at the same time."""
    user, item = np.divmod(np.arange(len(user_ids) * len(item_ids)), len(item_ids))
    return Interactions(
        user=user.astype(np.int32),
        item=item.astype(np.int32),
        rating=None,
        timestamp=np.zeros(len(user), dtype=np.int64),
        user_ids=user_ids,
        item_ids=item_ids,
    )


def reorder(data: Interactions, order: NDArray[np.int64]) -> Interactions:
    """The same interactions in another file order."""
    assert data.timestamp is not None
    return replace(
        data, user=data.user[order], item=data.item[order], timestamp=data.timestamp[order]
    )


@st.composite
def datasets(draw: st.DrawFn, *, unique_times: bool = False) -> Interactions:
    """Two to five users with 3 to 9 of ten items; times tie often unless they are unique."""
    item_sets = st.sets(st.integers(0, 9), min_size=3, max_size=9)
    histories = draw(st.lists(item_sets, min_size=2, max_size=5))
    rows = [(user, item) for user, items in enumerate(histories) for item in sorted(items)]
    times = st.integers(0, 999) if unique_times else st.integers(0, 3)
    size = len(rows)
    stamps = draw(st.lists(times, min_size=size, max_size=size, unique=unique_times))
    return interactions([user for user, _ in rows], [item for _, item in rows], stamps)


EVERY_SPLIT = pytest.mark.parametrize(
    ("splitter", "strategy"),
    [
        pytest.param(ONE_OUT, datasets(), id="leave_one_out"),
        pytest.param(LAST, datasets(), id="leave_last_fraction"),
        # With many ties a global cut may leave a part empty, which is an error.
        pytest.param(TEMPORAL, datasets(unique_times=True), id="temporal"),
        pytest.param(PER_USER, datasets(), id="random_user"),
        pytest.param(OVERALL, datasets(), id="random_global"),
        pytest.param(COLD_ITEMS, datasets(), id="cold_items"),
        pytest.param(COLD_USERS, datasets(), id="cold_users"),
    ],
)


@EVERY_SPLIT
@given(drawn=st.data(), seed=st.integers(0, 9))
def test_nothing_is_lost_and_nothing_stands_in_two_parts(
    splitter: Splitter, strategy: st.SearchStrategy[Interactions], drawn: st.DataObject, seed: int
) -> None:
    data = drawn.draw(strategy)
    rows = [splitter.split(data, seed).rows(part) for part in Part]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(data)))
    assert all(len(part) > 0 for part in rows)


@EVERY_SPLIT
@given(drawn=st.data(), seed=st.integers(0, 9))
def test_the_file_order_does_not_matter(
    splitter: Splitter, strategy: st.SearchStrategy[Interactions], drawn: st.DataObject, seed: int
) -> None:
    data = drawn.draw(strategy)
    order = np.random.default_rng(seed).permutation(len(data))
    labels = splitter.split(data, seed=1).part
    assert splitter.split(reorder(data, order), seed=1).part.tolist() == labels[order].tolist()


@given(data=datasets())
def test_leave_one_out_takes_one_test_and_one_validation_item_of_every_user(
    data: Interactions,
) -> None:
    split = ONE_OUT.split(data, seed=0)
    for part in (VALIDATION, TEST):
        assert data.user[split.rows(part)].tolist() == list(range(data.num_users))


@given(data=datasets())
def test_without_validation_what_it_held_out_is_trained_on_and_the_test_stays(
    data: Interactions,
) -> None:
    usual = ONE_OUT.split(data, seed=0).part
    whole = replace(ONE_OUT, num_validation=0).split(data, seed=0).part
    assert whole.tolist() == np.where(usual == VALIDATION, TRAIN, usual).tolist()


@pytest.mark.parametrize("splitter", [ONE_OUT, LAST])
@given(data=datasets())
def test_no_train_item_is_later_than_a_held_out_one(splitter: Splitter, data: Interactions) -> None:
    assert data.timestamp is not None
    part = splitter.split(data, seed=0).part
    for user in range(data.num_users):
        own = data.user == user
        times = [data.timestamp[own & (part == label)] for label in Part]
        assert times[TRAIN].max() <= times[VALIDATION].min()
        assert times[VALIDATION].max() <= times[TEST].min()


@given(data=datasets(unique_times=True))
def test_temporal_trains_on_the_past_of_everyone(data: Interactions) -> None:
    assert data.timestamp is not None
    part = TEMPORAL.split(data, seed=0).part
    times = [data.timestamp[part == label] for label in Part]
    assert times[TRAIN].max() < times[VALIDATION].min()
    assert times[VALIDATION].max() < times[TEST].min()
    assert [len(held_out) for held_out in times[1:]] == [
        max(1, int(len(data) * 0.2 + 1e-9)),
        max(1, int(len(data) * 0.3 + 1e-9)),
    ]


@pytest.mark.parametrize("splitter", [LAST, PER_USER])
@given(data=datasets())
def test_each_user_gives_its_fraction_rounded_down_but_at_least_one(
    splitter: Splitter, data: Interactions
) -> None:
    split = splitter.split(data, seed=0)
    lengths = np.bincount(data.user)
    for part, fifths in ((VALIDATION, 2), (TEST, 3)):
        held_out = np.bincount(data.user[split.rows(part)], minlength=data.num_users)
        assert held_out.tolist() == np.maximum(1, lengths * fifths // 10).tolist()


def test_random_global_takes_its_fractions_of_all_interactions() -> None:
    data = all_tied(np.arange(20), np.arange(50))
    split = Random("global", 0.1, 0.2, negatives="honest").split(data, seed=0)
    assert [len(split.rows(part)) for part in Part] == [700, 100, 200]


def test_the_latest_rows_of_a_history_are_held_out() -> None:
    assert ONE_OUT.split(history(30, 10, 40, 20), seed=0).part.tolist() == [
        VALIDATION,
        TRAIN,
        TEST,
        TRAIN,
    ]


@given(data=datasets())
def test_neither_the_unit_of_time_nor_its_origin_matters(data: Interactions) -> None:
    assert data.timestamp is not None
    expected = ONE_OUT.split(data, seed=0).part.tolist()
    # As large as an int64 holds, and before 1970.
    for timestamp in (data.timestamp * 2**61, data.timestamp - 10):
        assert ONE_OUT.split(replace(data, timestamp=timestamp), seed=0).part.tolist() == expected


def test_with_file_order_the_later_row_of_a_tie_is_the_later_one() -> None:
    by_row = LeaveOneOut(1, ties="file_order", negatives="legacy")
    assert by_row.split(history(5, 5, 5, 1), seed=0).part.tolist() == [
        TRAIN,
        VALIDATION,
        TEST,
        TRAIN,
    ]


@pytest.mark.parametrize(
    ("user_ids", "item_ids"),
    [
        pytest.param(np.arange(1, 20_001), np.arange(1, 11), id="integers"),
        pytest.param(
            np.array([f"u{user}" for user in range(20_000)]),
            np.array([f"i{item}" for item in range(10)]),
            id="strings",
        ),
    ],
)
def test_ties_favour_no_item(user_ids: Ids, item_ids: Ids) -> None:
    data = all_tied(user_ids, item_ids)
    split = ONE_OUT.split(data, seed=0)
    for part in (VALIDATION, TEST):
        times_chosen = np.bincount(data.item[split.rows(part)], minlength=10)
        expected = len(user_ids) / 10
        assert ((times_chosen - expected) ** 2 / expected).sum() < chi2.ppf(0.999, df=10 - 1)


@pytest.mark.parametrize("splitter", [PER_USER, OVERALL])
def test_another_seed_draws_another_split(splitter: Splitter) -> None:
    data = all_tied(np.arange(20), np.arange(20))
    first, again, other = (splitter.split(data, seed).part.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_random_favours_no_place_in_the_file() -> None:
    data = all_tied(np.arange(20_000), np.arange(10))
    split = Random("user", 0.1, 0.1, negatives="honest").split(data, seed=0)
    for part in (VALIDATION, TEST):
        times_chosen = np.bincount(data.item[split.rows(part)], minlength=10)
        assert ((times_chosen - 2000) ** 2 / 2000).sum() < chi2.ppf(0.999, df=10 - 1)


@pytest.mark.parametrize(
    "splitter",
    [
        LeaveLastFraction(0, 0.3, ties="hash", negatives="honest"),
        Temporal(0, 0.3, negatives="honest"),
        Random("user", 0, 0.3, negatives="honest"),
        Random("global", 0, 0.3, negatives="honest"),
    ],
)
def test_no_validation_fraction_means_no_validation_part(splitter: Splitter) -> None:
    split = splitter.split(history(*range(10)), seed=0)
    assert [len(split.rows(part)) for part in Part] == [7, 0, 3]


def test_interactions_at_the_time_of_a_cut_fall_after_it() -> None:
    split = TEMPORAL.split(history(0, 1, 2, 3, 4, 5, 6, 8, 8, 8, 8), seed=0)
    assert [len(split.rows(part)) for part in Part] == [6, 1, 4]


def test_a_fraction_means_what_it_says_in_spite_of_floating_point() -> None:
    assert int(100 * 0.29) == 28
    assert num_held_out(np.array([100]), 0.29).tolist() == [29]


@given(st.floats(0, 0.99), st.floats(0.001, 0.99), st.integers(0, 50))
def test_a_history_that_is_long_enough_stays_so_when_it_grows(
    validation: float, test: float, extra: int
) -> None:
    scale = max(1.0, (validation + test) / 0.99)
    validation, test = validation / scale, test / scale
    least = least_history(validation, test)

    def num_train(length: int) -> int:
        lengths = np.array([length])
        held_out = num_held_out(lengths, validation) + num_held_out(lengths, test)
        return length - int(held_out[0])

    assert num_train(least - 1) < 1
    assert num_train(least + extra) >= 1
