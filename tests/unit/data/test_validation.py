import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.interactions import Interactions, Part
from fedrec_flower.data.sources.base import Duplicates
from fedrec_flower.data.sources.readers import RawTable
from fedrec_flower.data.sources.validation import encode
from fedrec_flower.data.splits.base import split_sha256
from fedrec_flower.data.splits.leave_one_out import LeaveOneOut


def table(**columns: Any) -> RawTable:
    """Rows of "some.csv", whose header is line 1 and whose columns are called `their <word>`."""
    names = {name: f"their {name}" for name in columns}
    return RawTable(pd.DataFrame(columns), "some.csv", names, lambda row: f"line {row + 2}")


def encoded(
    raw: RawTable,
    duplicates: Duplicates = "error",
    min_interactions: int = 1,
    **tables: RawTable,
) -> Interactions:
    return encode(
        raw, name="some", duplicates=duplicates, min_interactions=min_interactions, **tables
    )


def triples(data: Interactions) -> set[tuple[Any, Any, float]]:
    assert data.rating is not None
    users, items = data.user_ids[data.user], data.item_ids[data.item]
    return set(zip(users.tolist(), items.tolist(), data.rating.tolist(), strict=True))


def test_columns_have_the_promised_types() -> None:
    data = encoded(table(user=[7, 5], item=["b", "a"], rating=[1, 2], timestamp=[8, 9]))
    assert data.user.dtype == data.item.dtype == np.int32
    assert data.rating is not None
    assert data.timestamp is not None
    assert data.rating.dtype == np.float32
    assert data.timestamp.dtype == np.int64
    assert data.user_ids.dtype == np.int64
    assert data.item_ids.dtype.kind == "U"


def test_whole_numbers_sort_as_numbers_and_anything_else_as_text() -> None:
    data = encoded(table(user=["10", "9", "-1"], item=["10", "9", "x"]))
    assert data.user_ids.tolist() == [-1, 9, 10]
    assert data.item_ids.tolist() == ["10", "9", "x"]


@pytest.mark.parametrize("ids", [["07", "7"], ["1.0", "1"], ["9" * 19, "1"], ["+1", "1"]])
def test_ids_that_a_number_would_merge_or_change_stay_text(ids: list[str]) -> None:
    assert encoded(table(user=ids, item=["1", "2"])).user_ids.tolist() == sorted(ids)


def test_whole_floats_are_whole_numbers() -> None:
    assert encoded(table(user=[2.0, 1.0], item=[1, 1])).user_ids.tolist() == [1, 2]


@given(st.data())
def test_file_order_changes_no_code(data: st.DataObject) -> None:
    pair = st.tuples(st.integers(-5, 20), st.text("ab1", min_size=1, max_size=2))
    rows = data.draw(st.lists(pair, min_size=1, unique=True))
    rating = [float(number) for number in range(len(rows))]
    order = data.draw(st.permutations(range(len(rows))))
    users, items = zip(*rows, strict=True)
    one = encoded(table(user=list(users), item=list(items), rating=rating))
    other = encoded(
        table(
            user=[users[i] for i in order],
            item=[items[i] for i in order],
            rating=[rating[i] for i in order],
        )
    )
    np.testing.assert_array_equal(one.user_ids, other.user_ids)
    np.testing.assert_array_equal(one.item_ids, other.item_ids)
    assert triples(one) == triples(other)
    assert len(one) == len(rows)


def test_absent_ratings_and_times_are_none() -> None:
    data = encoded(table(user=[1], item=[1]))
    assert data.rating is None
    assert data.timestamp is None


@pytest.mark.parametrize(
    ("column", "cells", "complaint"),
    [
        ("user", ["a", None], "some.csv, line 3: their user is missing"),
        ("item", ["a", None], "some.csv, line 3: their item is missing"),
        ("rating", [3, None], "some.csv, line 3: their rating is missing"),
        ("rating", ["3", "three"], "some.csv, line 3: their rating 'three' is not a finite number"),
        (
            "rating",
            [float("inf"), 1],
            "some.csv, line 2: their rating 'inf' is not a finite number",
        ),
        ("rating", [1, 1e300], "some.csv, line 3: their rating '1e.300' is not a finite number"),
        ("timestamp", [3, None], "some.csv, line 3: their timestamp is missing"),
        ("timestamp", ["3", "May"], "some.csv, line 3: their timestamp 'May' is not a finite"),
        ("timestamp", [3, -1], "some.csv, line 3: their timestamp -1 is not a time"),
        ("timestamp", [1e30, 1], "some.csv, line 2: their timestamp 1e.30 is not a time"),
        ("timestamp", [pd.Timestamp(3), pd.NaT], "some.csv, line 3: their timestamp is missing"),
    ],
)
def test_a_bad_cell_is_named_by_file_line_and_column(
    column: str, cells: list[Any], complaint: str
) -> None:
    rows: dict[str, list[Any]] = {"user": [1, 2], "item": [1, 2], column: cells}
    with pytest.raises(DataError, match=complaint):
        encoded(table(**rows))


def test_no_rows_are_an_error() -> None:
    with pytest.raises(DataError, match=r"some\.csv holds no interaction"):
        encoded(table(user=[], item=[]))


def test_fractions_of_a_second_are_kept_in_finer_units() -> None:
    """F2: order within a second decides what is held out."""
    halves = encoded(table(user=[1, 2], item=[1, 2], timestamp=[5.0, 6.9]))
    assert halves.timestamp is not None
    assert (halves.timestamp.tolist(), halves.ticks_per_second) == ([5_000_000, 6_900_000], 10**6)
    day = pd.Timestamp("1970-01-02")
    dates = [day + pd.Timedelta(milliseconds=250), day]
    finer = encoded(table(user=[1, 2], item=[1, 2], timestamp=pd.Series(dates).dt.as_unit("ms")))
    assert finer.timestamp is not None
    assert (finer.timestamp.tolist(), finer.ticks_per_second) == ([86_400_250, 86_400_000], 1000)


def test_order_within_a_second_decides_what_is_held_out() -> None:
    """F2: the last of six interactions in one second is the test item of every user."""
    times = [1_600_000_000 + user * 1000 + step * 0.15 for user in range(50) for step in range(6)]
    users, items = np.repeat(np.arange(50), 6), np.tile([5, 3, 4, 1, 2, 0], 50)
    data = encoded(table(user=users, item=items, timestamp=[f"{time:.2f}" for time in times]))
    split = LeaveOneOut(1, ties="hash", negatives="honest").split(data, seed=0)
    assert set(data.item[split.rows(Part.TEST)].tolist()) == {0}
    whole = replace(data, timestamp=np.floor(times).astype(np.int64), ticks_per_second=1)
    assert split_sha256(data, split) == split_sha256(whole, split)


def test_dates_become_seconds() -> None:
    dates = [pd.Timestamp("1970-01-02"), pd.Timestamp("1970-01-01 00:01")]
    naive = encoded(table(user=[1, 2], item=[1, 2], timestamp=dates))
    assert naive.timestamp is not None
    assert naive.timestamp.tolist() == [24 * 3600, 60]
    there = [date.tz_localize("Etc/GMT-2") for date in dates[:1]]  # two hours ahead
    aware = encoded(table(user=[1], item=[1], timestamp=there))
    assert aware.timestamp is not None
    assert aware.timestamp.tolist() == [22 * 3600]


def test_the_second_of_a_repeated_pair_is_the_offending_line() -> None:
    rows = table(user=["a", "b", "a", "a"], item=[1, 1, 2, 1])
    complaint = r"some\.csv, line 5: their item 1 meets user a a second time.*duplicates=last"
    with pytest.raises(DataError, match=complaint):
        encoded(rows)


def test_last_keeps_the_latest_by_time_then_by_file_order(caplog: pytest.LogCaptureFixture) -> None:
    rows = table(
        user=[1, 1, 1, 2, 2],
        item=[1, 1, 1, 1, 1],
        rating=[1.0, 2.0, 3.0, 4.0, 5.0],
        timestamp=[7, 9, 8, 3, 3],
    )
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        assert triples(encoded(rows, "last")) == {(1, 1, 2.0), (2, 1, 5.0)}
    assert "dropped 3 earlier rows" in caplog.text


def test_without_time_last_keeps_the_last_row() -> None:
    rows = table(user=[1, 2, 1], item=[1, 1, 1], rating=[1.0, 2.0, 3.0])
    data = encoded(rows, "last")
    assert data.rating is not None
    assert data.rating.tolist() == [2.0, 3.0]  # file order


def test_rare_users_go_with_the_items_that_only_they_met(caplog: pytest.LogCaptureFixture) -> None:
    rows = table(user=[1, 1, 2, 3, 3], item=["a", "b", "c", "a", "d"])
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        data = encoded(rows, min_interactions=2)
    assert data.user_ids.tolist() == [1, 3]
    assert data.item_ids.tolist() == ["a", "b", "d"]
    assert data.user.tolist() == [0, 0, 1, 1]
    assert data.item.tolist() == [0, 1, 0, 2]
    assert "dropped 1 users with fewer than 2 interactions (1 rows)" in caplog.text


def test_repeated_rows_do_not_count_towards_the_least_activity() -> None:
    rows = table(user=[1, 1, 2, 2], item=[1, 1, 1, 2])
    assert encoded(rows, "last", 2).user_ids.tolist() == [2]


def test_dropping_everybody_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no user with 3 .* has 2: lower dataset.min_interactions"):
        encoded(table(user=[1, 1, 2], item=[1, 2, 1]), min_interactions=3)
    with pytest.raises(ConfigError, match="min_interactions=0 must be 1 or more"):
        encoded(table(user=[1], item=[1]), min_interactions=0)


def test_attributes_stand_in_the_order_of_the_codes(caplog: pytest.LogCaptureFixture) -> None:
    rows = table(user=[10, 9, 8], item=["x", "x", "x"])
    users = table(user=["9", "10", "77"], age=[90, 100, 770])
    with caplog.at_level(logging.WARNING, "fedrec_flower"):
        ages = encoded(rows, users=users).users["age"]
    assert ages.isna().tolist() == [True, False, False]
    assert ages.tolist()[1:] == [90, 100]
    assert ages.index.tolist() == [0, 1, 2]
    assert "1 users of the interactions are not in it" in caplog.text


def test_without_a_table_there_is_a_row_per_code_and_no_column() -> None:
    data = encoded(table(user=[1, 2], item=[5, 5]))
    assert data.users.shape == (2, 0)
    assert data.items.shape == (1, 0)


@pytest.mark.parametrize(
    ("ids", "complaint"),
    [([5, 5], "line 3: their item 5 is repeated"), ([5, None], "line 3: their item is")],
)
def test_an_attribute_table_names_each_id_once(ids: list[Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        encoded(table(user=[1], item=[5]), items=table(item=ids, title=["a", "b"]))
