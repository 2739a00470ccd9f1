"""Laws of clipping: for any update, a client's contribution stays within its bound."""

from math import inf
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.privacy.clipping import clip_updates, tensor_norms

TABLES = {"table"}
FINITE = st.floats(-(2.0**127), 2.0**127, width=32)
ADVERSARIAL = st.floats(width=32, allow_nan=True, allow_infinity=True)


def make(sizes: list[int], table: NDArray[np.float32], dense: NDArray[np.float32]) -> Updates:
    """Clients that touched so many rows each."""
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    rows = np.concatenate([np.arange(size) for size in sizes]).astype(np.int64)
    count = len(sizes)
    weights = np.arange(1.0, count + 1)
    return Updates(np.arange(count), weights, offsets, rows, {"table": table, "dense": dense})


@st.composite
def updates(draw: st.DrawFn, values: st.SearchStrategy[float]) -> Updates:
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=4))
    table = draw(arrays(np.float32, (sum(sizes), 2), elements=values))
    return make(sizes, table, draw(arrays(np.float32, (len(sizes), 3), elements=values)))


def contribution(sent: Updates, place: int, order: int) -> float:
    """The norm of one client's contribution to the sum, computed as on the server."""
    total = UpdateSum.zeros({"table": (3, 2), "dense": (3,)}, 3)
    total.add(sent.select(np.array([place]), TABLES), TABLES)
    whole = np.concatenate([value.ravel() for value in total.tensors.values()])
    return float(np.linalg.norm(whole, order))


@given(updates(ADVERSARIAL), st.floats(1e-3, 1e3), st.booleans(), st.sampled_from([1, 2]))
def test_no_contribution_exceeds_the_bound(
    sent: Updates,
    bound: float,
    per_tensor: bool,  # noqa: FBT001  # hypothesis passes it by place
    order: Literal[1, 2],
) -> None:
    released = clip_updates(sent, TABLES, bound, per_tensor=per_tensor, order=order)
    for place in range(len(sent.clients)):
        assert contribution(released, place, order) <= bound
    assert all(np.isfinite(value).all() for value in released.tensors.values())
    assert_array_equal(released.weights, 1.0)


@given(updates(FINITE), st.booleans())
def test_an_infinite_bound_changes_nothing_but_weights(
    sent: Updates,
    per_tensor: bool,  # noqa: FBT001  # hypothesis passes it by place
) -> None:
    released = clip_updates(sent, TABLES, inf, per_tensor=per_tensor)
    for name, value in sent.tensors.items():
        assert released.tensors[name] is value
    assert_array_equal(released.weights, 1.0)


def test_a_long_update_keeps_its_direction_and_a_short_one_its_length() -> None:
    table = np.array([[3.0, 0.0], [0.0, 0.1]], np.float32)
    sent = make([1, 1], table, np.array([[4.0, 0, 0], [0, 0, 0]], np.float32))
    released = clip_updates(sent, TABLES, 1.0, per_tensor=False)
    assert_allclose(released.tensors["table"], [[3 / 5, 0], [0, 0.1]], rtol=1e-5)
    assert_allclose(released.tensors["dense"][0], [4 / 5, 0, 0], rtol=1e-5)


def test_per_tensor_each_has_an_equal_share_of_the_square() -> None:
    sent = make([1], np.array([[3.0, 4.0]], np.float32), np.array([[0.0, 0.5, 0.0]], np.float32))
    released = clip_updates(sent, TABLES, 1.0, per_tensor=True)
    share = (1 / 2) ** 0.5
    assert_allclose(released.tensors["table"], [[3 / 5 * share, 4 / 5 * share]], rtol=1e-5)
    assert_array_equal(released.tensors["dense"], sent.tensors["dense"])


def test_an_update_that_is_not_finite_becomes_zero_and_changes_no_other() -> None:
    table = np.array([[np.nan, 1.0], [1.0, 0.0]], np.float32)
    released = clip_updates(
        make([1, 1], table, np.ones((2, 3), np.float32)), TABLES, 1.0, per_tensor=False
    )
    assert_array_equal(released.tensors["table"][0], 0.0)
    assert_array_equal(released.tensors["dense"][0], 0.0)
    assert_allclose(released.tensors["table"][1], [0.5, 0.0], rtol=1e-5)


def test_norms_are_of_each_client_and_tensor() -> None:
    table = np.array([[3.0, 4.0], [0.0, 12.0], [1.0, 1.0]], np.float32)
    sent = make([2, 0, 1], table, np.array([[1, 2, 2], [0, 0, 0], [0, 3, 4]], np.float32))
    assert_allclose(tensor_norms(sent, TABLES), [[13.0, 3.0], [0.0, 0.0], [2**0.5, 5.0]])
    assert_allclose(tensor_norms(sent, TABLES, order=1), [[19.0, 5.0], [0.0, 0.0], [2.0, 7.0]])


@pytest.mark.parametrize("per_tensor", [False, True])
def test_clipping_does_not_change_its_input(per_tensor: bool) -> None:  # noqa: FBT001  # by pytest
    sent = make([1], np.full((1, 2), 9.0, np.float32), np.full((1, 3), 9.0, np.float32))
    clip_updates(sent, TABLES, 1.0, per_tensor=per_tensor)
    assert_array_equal(sent.tensors["table"], 9.0)
    assert_array_equal(sent.weights, [1.0])
