"""Entries of histories: complete, in order, with negatives that depend on the history only."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.ops.history_entries import PaddedHistories

NUM_ITEMS = 30
HISTORIES = st.lists(st.lists(st.integers(0, NUM_ITEMS - 1), max_size=9), min_size=1, max_size=5)


def columns(histories: list[list[int]]) -> Columns:
    offsets = np.cumsum([0, *map(len, histories)])
    item = np.array([item for items in histories for item in items], np.int32)
    return Columns(offsets, item, (item % 5 + 1).astype(np.float32))


@given(HISTORIES, st.integers(1, 4))
def test_ordered_entries_fill_windows_from_the_end(histories: list[list[int]], window: int) -> None:
    entries = PaddedHistories.ordered(columns(histories), window)
    assert_array_equal(entries.offsets % window, 0)
    for user, items in enumerate(histories):
        mine = slice(*entries.offsets[user : user + 2])
        padding = (mine.stop - mine.start) - len(items)
        assert 0 <= padding < window
        assert entries.weight[mine].tolist() == [0.0] * padding + [1.0] * len(items)
        assert entries.item[mine][padding:].tolist() == items
        assert entries.target[mine][padding:].tolist() == [item % 5 + 1 for item in items]
        assert_array_equal(entries.user[mine], user)


@given(HISTORIES, st.integers(1, 4))
def test_last_gives_the_entry_of_the_last_item_read(
    histories: list[list[int]], window: int
) -> None:
    entries = PaddedHistories.ordered(columns(histories), window)
    for user, items in enumerate(histories):
        count = np.arange(len(items) + 1)
        nothing, *last = entries.last(np.full(len(count), user), count)
        assert nothing == -1
        assert entries.item[last].tolist() == items


@given(HISTORIES, st.integers(0, 3))
def test_unordered_entries_are_each_item_followed_by_its_negatives(
    histories: list[list[int]], num_negatives: int
) -> None:
    history = columns(histories)
    entries = PaddedHistories.unordered(history, num_negatives, NUM_ITEMS)
    grouped = entries.item.reshape(-1, 1 + num_negatives)
    target = entries.target.reshape(grouped.shape)
    assert_array_equal(grouped[:, 0], history.item)
    assert_array_equal(target[:, 0], history.rating)
    assert not target[:, 1:].any()
    assert_array_equal(entries.length, [len(items) for items in histories])
    for user, items in enumerate(histories):
        mine = slice(*entries.offsets[user : user + 2])
        assert_array_equal(entries.user[mine], user)
        negative = (target.reshape(-1)[mine] == 0) & (entries.weight[mine] == 1)
        assert not set(entries.item[mine][negative].tolist()) & set(items)


@given(HISTORIES)
def test_negatives_do_not_depend_on_other_loaded_users(
    histories: list[list[int]],
) -> None:
    together = PaddedHistories.unordered(columns(histories), 2, NUM_ITEMS)
    for user, items in enumerate(histories):
        alone = PaddedHistories.unordered(columns([items]), 2, NUM_ITEMS)
        mine = slice(*together.offsets[user : user + 2])
        assert_array_equal(together.item[mine], alone.item)
        assert_array_equal(together.weight[mine], alone.weight)


def test_negatives_are_uniform_over_the_catalogue() -> None:
    entries = PaddedHistories.unordered(
        columns([[user % NUM_ITEMS, 3] for user in range(60)]), 200, 10**9
    )
    drawn = entries.item.reshape(-1, 201)[:, 1:] / 10**9
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert np.abs(counts / drawn.size - 1 / 20).max() < 0.005


@given(HISTORIES, st.data(), st.none() | st.integers(1, 5))
def test_take_returns_the_latest_items_of_the_given_users(
    histories: list[list[int]], data: st.DataObject, at_most: int | None
) -> None:
    users = data.draw(st.lists(st.integers(0, len(histories) - 1), max_size=6))
    result = columns(histories).take(np.array(users, np.int64), at_most)
    expected = [histories[user][-(at_most or 99) :] for user in users]
    assert result.offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert result.item.tolist() == [item for items in expected for item in items]
    assert_array_equal(result.rating, result.item % 5 + 1)
