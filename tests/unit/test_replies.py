"""Whatever a node replies, the server says what is wrong with it and goes on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from fedrec_flower.aggregation import LAYOUT, ROW_WEIGHT, ROWS, Limits
from fedrec_flower.client.app import app
from fedrec_flower.errors import TrainingError
from fedrec_flower.federation import InProcessGrid
from fedrec_flower.strategies.expected import Expected
from fedrec_flower.strategies.losing import kind_of, said, warn_of
from fedrec_flower.strategies.reading import Reply, UnsoundError, read
from fedrec_flower.strategies.replies import Sound, each_update, update_sum

NUM_ITEMS, WIDTH = 6, 2
SHAPES = {"item": (NUM_ITEMS, WIDTH), "dense": (3,)}
ASKED = {1: [4, 5], 2: [8, 9]}
CLIENTS, WEIGHTS, OFFSETS, ROW_CODES, LOSSES = LAYOUT

Content = dict[str, dict[str, Any]]
Change = Callable[[Content], None]


def expected(*, stacked: bool = False) -> Expected:
    limits = Limits(weight=10.0, value=100.0)
    return Expected(SHAPES, {"item"}, NUM_ITEMS, limits, stacked, statistics=False)


def whole() -> Content:
    """What an honest node sends of two clients' sum, in whole tables."""
    return {
        "update": {
            "item": np.ones((NUM_ITEMS, WIDTH), np.float32),
            "dense": np.ones(3, np.float32),
            ROW_WEIGHT: np.full(NUM_ITEMS, 7.0),
        },
        "num_rows": {},
        "lost": {"clients": [], "reasons": []},
        "metrics": {"num_examples": 7.0, "loss": 1.5, "bytes_up": 9, "replied": 2},
    }


def packed() -> Content:
    """The same without the rows that nobody touched."""
    content = whole()
    rows = np.array([1, 4], np.int32)
    content["update"] |= {
        "item": np.ones((2, WIDTH), np.float32),
        ROW_WEIGHT: np.full(2, 7.0),
        ROWS: rows,
    }
    content["num_rows"] = {"item": NUM_ITEMS, ROW_WEIGHT: NUM_ITEMS}
    return content


def stacked() -> Content:
    """The same clients side by side."""
    content = whole()
    content["update"] = {
        "item": np.ones((3, WIDTH), np.float32),
        "dense": np.ones((2, 3), np.float32),
        CLIENTS: np.array([4, 5]),
        WEIGHTS: np.array([3.0, 4.0]),
        OFFSETS: np.array([0, 2, 3]),
        ROW_CODES: np.array([1, 4, 0]),
        LOSSES: np.array([0.5, 0.0]),
    }
    return content


def message(content: Content, node: int = 1) -> Message:
    """A reply of a node."""
    InProcessGrid(app, 2)  # makes this process a task that may make messages
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    kinds: dict[str, Any] = {"num_rows": ConfigRecord, "lost": ConfigRecord}
    kinds |= {"metrics": MetricRecord}
    records = {
        name: ArrayRecord({n: v if isinstance(v, Array) else Array(v) for n, v in record.items()})
        if name == "update"
        else kinds[name](record)
        for name, record in content.items()
    }
    return Message(RecordDict(records), reply_to=asked)


def verdict(content: Content, *, each: bool = False) -> str:
    """The kind of what is wrong with a reply; empty if nothing is."""
    try:
        expected(stacked=each).check(read(message(content)), ASKED[1])
    except UnsoundError as error:
        return str(error)
    return ""


def put(record: str, key: str, value: Any) -> Change:
    def change(content: Content) -> None:
        content[record][key] = value

    return change


def drop(record: str, key: str | None = None) -> Change:
    def change(content: Content) -> None:
        if key is None:
            del content[record]
        else:
            del content[record][key]

    return change


def poke(key: str, value: Any) -> Change:
    """One value of an array."""

    def change(content: Content) -> None:
        content["update"][key] = content["update"][key].copy()
        content["update"][key].flat[0] = value

    return change


@pytest.mark.parametrize(("make", "each"), [(whole, False), (packed, False), (stacked, True)])
def test_an_honest_reply_is_sound(make: Callable[[], Content], each: bool) -> None:  # noqa: FBT001  # pytest passes it
    assert verdict(make(), each=each) == ""


GARBAGE = Array("float32", (2,), "numpy.ndarray", b"no array at all")
UNREADABLE = Array("float32", (2,), "strange", b"")

IN_ANY: dict[str, tuple[Change, str]] = {
    "no update": (drop("update"), "malformed"),
    "no metrics": (drop("metrics"), "malformed"),
    "no losses": (drop("lost"), "malformed"),
    "no row numbers": (drop("num_rows"), "malformed"),
    "no weight": (drop("metrics", "num_examples"), "malformed"),
    "no loss": (drop("metrics", "loss"), "malformed"),
    "no bytes": (drop("metrics", "bytes_up"), "malformed"),
    "nobody counted": (drop("metrics", "replied"), "malformed"),
    "no reasons": (drop("lost", "reasons"), "malformed"),
    "fewer reasons": (put("lost", "clients", [4]), "malformed"),
    "a list for a weight": (put("metrics", "num_examples", [1.0, 2.0]), "malformed"),
    "half a client": (put("metrics", "replied", float("nan")), "malformed"),
    "too many clients": (put("metrics", "replied", 3), "malformed"),
    "fewer than none": (put("metrics", "replied", -1), "malformed"),
    "negative bytes": (put("metrics", "bytes_up", -1), "malformed"),
    "garbage": (put("update", "dense", GARBAGE), "malformed"),
    "another format": (put("update", "dense", UNREADABLE), "malformed"),
    "words": (put("update", "dense", np.array(["a", "b", "c"])), "malformed"),
    "complex numbers": (put("update", "dense", np.ones(3, complex)), "malformed"),
    "negative weight": (put("metrics", "num_examples", -1.0), "wrong_weight"),
    "enormous weight": (put("metrics", "num_examples", 1e30), "wrong_weight"),
    "NaN weight": (put("metrics", "num_examples", float("nan")), "wrong_weight"),
    "NaN loss": (put("metrics", "loss", float("nan")), "not_finite"),
    "another name": (put("update", "other", np.ones(3, np.float32)), "wrong_names"),
    "a name less": (drop("update", "dense"), "wrong_names"),
    "a short table": (put("update", "item", np.ones((1, WIDTH), "f")), "wrong_shape"),
    "a wide table": (put("update", "item", np.ones((NUM_ITEMS, 9), "f")), "wrong_shape"),
    "an axis more": (put("update", "dense", np.ones((2, 3, 1), "f")), "wrong_shape"),
    "a number": (put("update", "dense", np.array(1.0)), "wrong_shape"),
    "NaN": (poke("dense", np.nan), "not_finite"),
    "NaN in a table": (poke("item", np.nan), "not_finite"),
    "infinity": (poke("item", -np.inf), "not_finite"),
    "a huge value": (poke("item", 1e30), "huge"),
    "a huge negative value": (poke("dense", -1e30), "huge"),
}


@pytest.mark.parametrize(("make", "each"), [(whole, False), (packed, False), (stacked, True)])
@pytest.mark.parametrize("name", IN_ANY)
def test_what_no_honest_node_sends_is_told(
    make: Callable[[], Content],
    each: bool,  # noqa: FBT001  # pytest passes it
    name: str,
) -> None:
    content, (change, kind) = make(), IN_ANY[name]
    change(content)
    assert kind_of(verdict(content, each=each)) == kind


IN_A_SUM: dict[str, tuple[Change, str]] = {
    "no weights of rows": (drop("update", ROW_WEIGHT), "wrong_names"),
    "rows beyond": (put("update", ROWS, np.array([1, NUM_ITEMS])), "wrong_rows"),
    "rows before": (put("update", ROWS, np.array([-1, 2])), "wrong_rows"),
    "a row twice": (put("update", ROWS, np.array([2, 2])), "wrong_rows"),
    "falling rows": (put("update", ROWS, np.array([4, 1])), "wrong_rows"),
    "rows that are no codes": (put("update", ROWS, np.array([1.0, 4.0])), "wrong_rows"),
    "huge whole numbers": (put("update", "dense", np.full(3, 2**32)), "malformed"),
    "rows in a square": (put("update", ROWS, np.array([[1, 4], [2, 3]])), "wrong_rows"),
    "a number of rows": (put("update", ROWS, np.array(1)), "wrong_rows"),
    "a taller table": (put("num_rows", "item", NUM_ITEMS + 1), "wrong_shape"),
    "a table not lost": (drop("num_rows", "item"), "wrong_shape"),
    "a negative row": (poke(ROW_WEIGHT, -1.0), "wrong_weight"),
    "a heavy row": (poke(ROW_WEIGHT, 8.0), "huge"),
    "a NaN row": (poke(ROW_WEIGHT, np.nan), "not_finite"),
    "a row that weighs nothing": (poke(ROW_WEIGHT, 0.0), "huge"),
    "a row that weighs next to nothing": (poke(ROW_WEIGHT, 1e-30), "huge"),
    "more than the clients' weight allows": (poke("dense", 7 * 101.0), "huge"),
}


@pytest.mark.parametrize("name", IN_A_SUM)
def test_a_packed_sum_is_looked_at_closely(name: str) -> None:
    content, (change, kind) = packed(), IN_A_SUM[name]
    change(content)
    assert kind_of(verdict(content)) == kind


def test_who_tells_nothing_weighs_nothing() -> None:
    content = whole()
    content["update"], content["num_rows"] = {}, {}
    put("metrics", "replied", 0)(content)
    assert kind_of(verdict(content)) == "wrong_weight"
    put("metrics", "num_examples", 0)(content)
    assert verdict(content) == ""


def test_a_sum_may_be_as_large_as_its_clients_could_make_it() -> None:
    content = whole()
    poke("dense", 7 * 100.0)(content)
    assert verdict(content) == ""


SIDE_BY_SIDE: dict[str, tuple[Change, str]] = {
    **{f"no {name}": (drop("update", name), "malformed") for name in LAYOUT},
    "a client not asked": (put("update", CLIENTS, np.array([4, 8])), "malformed"),
    "a client twice": (put("update", CLIENTS, np.array([4, 4])), "malformed"),
    "a client too many": (put("metrics", "replied", 1), "malformed"),
    "weights in a square": (put("update", WEIGHTS, np.ones((2, 2))), "wrong_shape"),
    "a weight less": (put("update", WEIGHTS, np.ones(1)), "wrong_shape"),
    "a negative weight": (put("update", WEIGHTS, np.array([-3.0, 10.0])), "wrong_weight"),
    "a heavy weight": (put("update", WEIGHTS, np.array([1.0, 11.0])), "wrong_weight"),
    "a NaN weight": (poke(WEIGHTS, np.nan), "wrong_weight"),
    "weights of another sum": (put("update", WEIGHTS, np.array([3.0, 5.0])), "wrong_weight"),
    "offsets that fall": (put("update", OFFSETS, np.array([0, 4, 3])), "wrong_shape"),
    "offsets from one": (put("update", OFFSETS, np.array([1, 2, 3])), "wrong_shape"),
    "offsets beyond": (put("update", OFFSETS, np.array([0, 2, 4])), "wrong_shape"),
    "offsets of fewer": (put("update", OFFSETS, np.array([0, 3])), "wrong_shape"),
    "no offsets at all": (put("update", OFFSETS, np.zeros(0, np.int64)), "wrong_shape"),
    "offsets that wrap round": (put("update", OFFSETS, np.array([0, 4, 3], "u8")), "wrong_shape"),
    "clients that are no codes": (put("update", CLIENTS, np.array([4.0, 5.0])), "wrong_shape"),
    "huge whole numbers": (put("update", "dense", np.full((2, 3), 2**32)), "malformed"),
    "half offsets": (put("update", OFFSETS, np.array([0, 1.5, 3])), "wrong_shape"),
    "rows beyond": (put("update", ROW_CODES, np.array([1, 6, 0])), "wrong_rows"),
    "a row twice": (put("update", ROW_CODES, np.array([1, 1, 0])), "wrong_rows"),
    "a NaN loss": (poke(LOSSES, np.nan), "not_finite"),
    "an infinite loss": (poke(LOSSES, np.inf), "not_finite"),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_updates_side_by_side_are_looked_at_one_by_one(name: str) -> None:
    content, (change, kind) = stacked(), SIDE_BY_SIDE[name]
    change(content)
    assert kind_of(verdict(content, each=True)) == kind


@given(st.binary(max_size=200), st.sampled_from(["item", "dense", ROW_WEIGHT]))
def test_no_bytes_raise_anything_but_a_verdict(data: bytes, name: str) -> None:
    content = whole()
    content["update"][name] = Array("float32", (3,), "numpy.ndarray", data)
    assert kind_of(verdict(content)) == "malformed"


# --- many replies -----------------------------------------------------------------------------


def second() -> Content:
    content = whole()
    content["metrics"]["replied"] = 1
    content["lost"] = {"clients": [9], "reasons": ["dropped_out"]}
    return content


def test_sound_replies_stand_in_the_order_of_the_nodes() -> None:
    replies = [message(second(), 2), message(whole(), 1)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert [reply.replied for reply in sound.replies] == [2, 1]
    assert sound.lost == {9: "dropped_out"}


def test_a_reply_that_comes_again_is_counted_once() -> None:
    replies = [message(whole(), 1), message(second(), 2), message(second(), 2)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert len(sound.replies) == 2
    assert sound.lost == {8: "repeated: counted once", 9: "dropped_out"}
    assert update_sum(sound.replies).weight == 7.0 + 7.0


def test_a_node_that_was_not_asked_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    replies = [message(whole(), 1), message(second(), 2), message(whole(), 3)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert len(sound.replies) == 2
    assert "left out a reply of node 3, which was not asked" in caplog.text


def test_a_bad_node_loses_its_clients_and_no_others() -> None:
    bad = whole()
    bad["update"]["dense"] = np.full(3, np.nan, np.float32)
    sound = Sound.sort_out([message(bad, 1), message(second(), 2)], ASKED, expected())
    assert sound.lost == dict.fromkeys((4, 5), "not_finite: dense") | {9: "dropped_out"}
    alone = Sound.sort_out([message(second(), 2)], {2: ASKED[2]}, expected())
    for name, value in update_sum(sound.replies).tensors.items():
        assert_array_equal(value, update_sum(alone.replies).tensors[name])


def test_a_silent_node_is_told_from_a_broken_one() -> None:
    sound = Sound.sort_out([message(second(), 2)], ASKED, expected())
    assert {kind_of(sound.lost[client]) for client in (4, 5)} == {"silent"}


def test_a_sound_reply_after_a_broken_one_counts() -> None:
    bad = whole()
    del bad["update"]
    sound = Sound.sort_out([message(bad, 1), message(whole(), 1)], {1: ASKED[1]}, expected())
    assert len(sound.replies) == 1
    assert sound.lost == {}


def failed(node: int) -> Message:
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    return Message(Error(0, "<class 'X'>:<'Message: disk is full'>"), reply_to=asked)


def test_where_every_node_fails_one_of_them_says_why() -> None:
    with pytest.raises(TrainingError, match=r"^a node failed: disk is full$"):
        Sound.sort_out([failed(1), failed(2)], ASKED, expected())


def test_where_one_node_fails_the_others_go_on() -> None:
    sound = Sound.sort_out([failed(1), message(second(), 2)], ASKED, expected())
    assert sound.lost[4] == "a_node_failed: disk is full"
    assert len(sound.replies) == 1


def test_where_nobody_replies_nothing_is_sound_and_nothing_raises() -> None:
    sound = Sound.sort_out([], ASKED, expected())
    assert sound.replies == []
    assert set(sound.lost) == {4, 5, 8, 9}


def test_updates_side_by_side_stand_ascending_by_client() -> None:
    other = stacked()
    other["update"][CLIENTS] = np.array([9, 8])
    replies = [read(message(other, 2)), read(message(stacked(), 1))]
    updates, losses = each_update(replies, {"item"})
    assert_array_equal(updates.clients, [4, 5, 8, 9])
    assert_array_equal(updates.weights, [3, 4, 4, 3])
    assert_array_equal(updates.offsets, [0, 2, 3, 4, 6])
    assert_array_equal(updates.rows, [1, 4, 0, 0, 1, 4])
    assert_array_equal(losses, [0.5, 0, 0, 0.5])


def test_nodes_that_tell_nothing_are_left_out_of_what_stands_side_by_side() -> None:
    silent = Reply(0.0, 0.0, 0, 0, {}, {}, {})
    expected(stacked=True).check(silent, ASKED[2])
    updates, _ = each_update([silent, read(message(stacked()))], {"item"})
    assert_array_equal(updates.clients, [4, 5])


# --- words ------------------------------------------------------------------------------------


def test_a_warning_names_clients_and_reason_and_spares_the_expected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = dict.fromkeys(range(7), "not_finite: dense") | {8: "dropped_out", 9: "late: after 9"}
    warn_of(3, lost | {11: "huge: item"})
    assert [record.getMessage() for record in caplog.records] == [
        "round 3: left out client 0, 1, 2, 3, 4 and 2 more: not_finite: dense",
        "round 3: left out client 11: huge: item",
    ]


def test_losses_are_said_by_kind() -> None:
    assert said({"late": 2, "dropped_out": 3}) == "3 dropped_out, 2 late"
    assert said({}) == "no reply"
