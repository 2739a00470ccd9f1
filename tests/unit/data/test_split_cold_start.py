"""Laws of the cold splits: what is held out, an item or a user, leaves no trace in train."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions, Part
from fedrec_flower.data.splits.cold_start import ColdItems, ColdUsers
from tests.helpers.splitting import ONE_OUT, TEST, TRAIN, VALIDATION, history, interactions

SEEDS = st.integers(0, 9)
FRACTIONS = st.floats(0.05, 0.4)


@st.composite
def datasets(draw: st.DrawFn, least: int = 1) -> Interactions:
    """Two to eight users with at least so many of twelve items; times tie often."""
    item_sets = st.sets(st.integers(0, 11), min_size=least)
    histories = draw(st.lists(item_sets, min_size=2, max_size=8).filter(lambda h: len(h[0]) > 2))
    rows = [(user, item) for user, items in enumerate(histories) for item in sorted(items)]
    stamps = draw(st.lists(st.integers(0, 3), min_size=len(rows), max_size=len(rows)))
    return interactions([user for user, _ in rows], [item for _, item in rows], stamps)


def cold_users(fraction: float, num_support: int = 0) -> ColdUsers:
    return ColdUsers(fraction, num_support, ties="hash", negatives="honest")


@given(datasets(), FRACTIONS, FRACTIONS, SEEDS)
def test_everything_that_happened_to_an_item_is_in_one_part(
    data: Interactions, validation: float, test: float, seed: int
) -> None:
    part = ColdItems(validation, test, negatives="honest").split(data, seed).part
    for item in np.unique(data.item):
        assert len(set(part[data.item == item].tolist())) == 1


@given(datasets(), FRACTIONS, FRACTIONS, SEEDS)
def test_each_part_has_its_share_of_the_items_rounded_down_but_at_least_one(
    data: Interactions, validation: float, test: float, seed: int
) -> None:
    split = ColdItems(validation, test, negatives="honest").split(data, seed)
    num_items = len(np.unique(data.item))
    for part, share in ((VALIDATION, validation), (TEST, test)):
        held_out = np.unique(data.item[split.rows(part)])
        assert len(held_out) == max(1, int(num_items * share + 1e-9))


def test_without_a_validation_fraction_items_are_for_train_or_test() -> None:
    split = ColdItems(0, 0.3, negatives="honest").split(history(*range(10)), seed=0)
    assert [len(split.rows(part)) for part in Part] == [7, 0, 3]


def test_too_few_items_are_refused_by_number() -> None:
    with pytest.raises(DataError, match="with 2 items and this split needs 3: lower"):
        ColdItems(0.1, 0.1, negatives="honest").split(history(1, 2), seed=0)


@given(datasets(least=3), FRACTIONS, SEEDS)
def test_a_held_out_user_has_nothing_in_train_and_the_others_have_everything_there(
    data: Interactions, fraction: float, seed: int
) -> None:
    part = cold_users(fraction).split(data, seed).part
    cold = np.unique(data.user[part != TRAIN])
    assert not np.isin(cold, data.user[part == TRAIN]).any()
    assert len(cold) == max(1, int(data.num_users * fraction + 1e-9))


@given(datasets(least=3), FRACTIONS, SEEDS)
def test_a_held_out_user_is_tested_on_the_item_that_leave_one_out_tests_them_on(
    data: Interactions, fraction: float, seed: int
) -> None:
    part, usual = (s.split(data, seed).part for s in (cold_users(fraction), ONE_OUT))
    cold = np.isin(data.user, data.user[part == TEST])
    assert part[cold & (usual == TEST)].tolist() == [TEST] * len(np.unique(data.user[cold]))
    assert set(part[cold & (usual != TEST)].tolist()) == {VALIDATION}


@given(datasets(least=5), st.integers(0, 3), SEEDS)
def test_support_is_the_first_interactions_and_changes_no_test_item(
    data: Interactions, num_support: int, seed: int
) -> None:
    assert data.timestamp is not None
    stranger, beginner = (cold_users(0.4, n).split(data, seed).part for n in (0, num_support))
    assert (stranger == TEST).tolist() == (beginner == TEST).tolist()
    for user in np.unique(data.user[stranger == TEST]):
        own = data.user == user
        support, rest = own & (beginner == TRAIN), own & (beginner != TRAIN)
        assert support.sum() == num_support
        assert data.timestamp[support].max(initial=0) <= data.timestamp[rest].min()


def test_somebody_is_left_to_train_on() -> None:
    part = cold_users(0.9999999999).split(interactions([0, 0, 1, 1], [0, 1, 0, 1], [0, 1, 2, 3]), 0)
    assert sorted(part.part.tolist()) == [TRAIN, TRAIN, VALIDATION, TEST]


@pytest.mark.parametrize("splitter", [ColdItems(0.2, 0.3, negatives="honest"), cold_users(0.3)])
def test_another_seed_holds_out_others(splitter: ColdItems | ColdUsers) -> None:
    user, item = np.divmod(np.arange(400), 20)
    data = interactions(user.tolist(), item.tolist(), np.arange(400).tolist())
    first, again, other = (splitter.split(data, seed).part.tolist() for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_user_too_short_to_be_held_out_is_named() -> None:
    data = interactions([0, 0, 0, 1], [0, 1, 2, 0], [1, 2, 3, 4])
    with pytest.raises(DataError, match="user 10 has 1 interactions and this split needs 2"):
        cold_users(0.4).split(data, seed=0)


def test_a_single_user_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="1 users and this split needs 2"):
        cold_users(0.4).split(history(1, 2, 3), seed=0)


def test_without_times_nobody_knows_a_users_last_item() -> None:
    with pytest.raises(DataError, match="split=random"):
        cold_users(0.4).split(replace(history(1, 2, 3), timestamp=None), seed=0)


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_impossible_fractions_of_users_are_refused(fraction: float) -> None:
    with pytest.raises(ConfigError, match="user_fraction must lie between 0 and 1"):
        cold_users(fraction)


def test_negative_support_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_support must not be negative: -1"):
        cold_users(0.2, -1)
