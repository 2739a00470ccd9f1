"""Whatever a node replies, the server says what is wrong with it."""

from collections.abc import Callable

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.communication.packing import ROWS
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT
from tests.helpers.written_replies import (
    ASKED,
    CLIENTS,
    LOSSES,
    NUM_ITEMS,
    OFFSETS,
    ROW_CODES,
    WEIGHTS,
    WIDTH,
    Change,
    Content,
    drop,
    expected,
    failure_kind,
    message,
    packed,
    poke,
    put,
    stacked,
    whole,
)


@pytest.mark.parametrize(("make", "each"), [(whole, False), (packed, False), (stacked, True)])
def test_an_honest_reply_is_sound(make: Callable[[], Content], each: bool) -> None:  # noqa: FBT001  # pytest passes it
    assert failure_kind(make(), each=each) is None


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
    assert failure_kind(content, each=each) == kind


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
    assert failure_kind(content) == kind


def test_who_tells_nothing_weighs_nothing() -> None:
    content = whole()
    content["update"], content["num_rows"] = {}, {}
    put("metrics", "replied", 0)(content)
    assert failure_kind(content) == "wrong_weight"
    put("metrics", "num_examples", 0)(content)
    assert failure_kind(content) is None


def test_a_sum_may_be_as_large_as_its_clients_could_make_it() -> None:
    content = whole()
    poke("dense", 7 * 100.0)(content)
    assert failure_kind(content) is None


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
    "a negative loss": (poke(LOSSES, -0.1), "wrong_loss"),
}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_updates_side_by_side_are_looked_at_one_by_one(name: str) -> None:
    content, (change, kind) = stacked(), SIDE_BY_SIDE[name]
    change(content)
    assert failure_kind(content, each=True) == kind


def test_clients_of_no_weight_make_no_sum_of_one() -> None:
    content = stacked()
    for name, nothing in {"item": (3, WIDTH), "dense": (2, 3), WEIGHTS: (2,)}.items():
        content["update"][name] = np.zeros(nothing, np.float32)
    put("metrics", "num_examples", 0.0)(content)
    assert failure_kind(content, each=True) is None
    put("metrics", "num_examples", 1e-9)(content)
    assert failure_kind(content, each=True) == "wrong_weight"


def test_where_an_objective_rewards_a_loss_may_be_negative() -> None:
    content = stacked()
    poke(LOSSES, -0.1)(content)
    expected(stacked=True, losses_below_zero=True).validate(message(content), ASKED[1])


@given(st.binary(max_size=200), st.sampled_from(["item", "dense", ROW_WEIGHT]))
def test_no_bytes_raise_anything_but_a_verdict(data: bytes, name: str) -> None:
    content = whole()
    content["update"][name] = Array("float32", (3,), "numpy.ndarray", data)
    assert failure_kind(content) == "malformed"
