"""Int8 compression: one byte per entry, unbiased."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.communication.compression.base import NoCompression
from fedrec_flower.communication.compression.int8 import Int8
from fedrec_flower.core.updates import Updates
from tests.helpers.compressing import TABLES, decoded, of_matrix, rng_for

NUM_CLIENTS = 20_000
Matrix = NDArray[np.float32]


def steps(matrix: Matrix) -> NDArray[np.float64]:
    """Compute the step of each row by the definition."""
    largest = np.abs(matrix).max(axis=1, keepdims=True).astype(np.float64)
    with np.errstate(divide="ignore"):
        step: NDArray[np.float64] = np.maximum(2.0 ** np.ceil(np.log2(largest / 127)), 2.0**-126)
    return step


floats = st.floats(-1, 1, width=32) | st.floats(-(2.0**127), 2.0**127, width=32)


@given(arrays(np.float32, (3, 9), elements=floats))
def test_int8_error_of_an_entry_is_below_one_step(matrix: Matrix) -> None:
    error = np.abs(decoded(Int8(5), matrix).astype(np.float64) - matrix)
    assert (error < steps(matrix)).all()


@pytest.mark.parametrize(("largest", "step"), [(127, 1), (127.01, 2), (127.99, 2), (128, 2)])
def test_int8_step_is_the_smallest_with_127_steps_to_the_largest_entry(
    largest: float, step: int
) -> None:
    row = np.array([[largest, -largest, *np.full(998, 0.5)]], np.float32)
    sent = decoded(Int8(5), row)[0]
    assert set(sent[2:]) == {0, step}
    assert np.abs(sent[:2] - row[0, :2]).max() < step


@given(arrays(np.int8, (3, 8), elements=st.integers(-126, 126)), st.integers(-120, 100))
def test_int8_multiples_of_the_step_are_exact(codes: NDArray[np.int8], exponent: int) -> None:
    codes[:, 0] = 127
    matrix = np.ldexp(codes.astype(np.float32), exponent)
    assert_array_equal(decoded(Int8(5), matrix), matrix)


def test_int8_rounding_is_unbiased_and_independent() -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(1, 16)).astype(np.float32)
    sent, _ = Int8(5).compress(of_matrix(matrix, NUM_CLIENTS), TABLES, rng_for)
    step = steps(matrix).item()
    part = matrix[0] / step % 1
    spread = step * np.sqrt(part * (1 - part))  # standard deviation of a Bernoulli variable
    clients = sent.tensors["table"].astype(np.float64)
    assert (np.abs(clients.mean(axis=0) - matrix[0]) < 5 * spread / NUM_CLIENTS**0.5 + 1e-9).all()
    assert_allclose(clients.std(axis=0), spread, atol=0.02 * step)
    correlation = np.corrcoef(clients, rowvar=False) - np.eye(16)
    assert np.abs(correlation).max() < 5 / NUM_CLIENTS**0.5  # entries are rounded independently


def test_int8_rounds_the_parameters_of_a_client_independently() -> None:
    matrix = np.full((1, 4096), 0.3, np.float32)
    matrix[0, 0] = 1.0
    layout = of_matrix(matrix)
    both = {"table": matrix, "other": matrix}
    twice = Updates(layout.clients, layout.weights, layout.offsets, layout.rows, both)
    sent, _ = Int8(5).compress(twice, frozenset(both), rng_for)
    up = {name: array[0] > 0.3 for name, array in sent.tensors.items()}
    assert 0.3 < (up["table"] != up["other"]).mean() < 0.7


def test_int8_narrow_rows_share_a_step() -> None:
    column = np.array([[127.0], [0.25], [-3.0]], np.float32)
    sent = decoded(Int8(5), column)
    assert sent[[0, 2]].tolist() == [[127.0], [-3.0]]
    assert sent[1] in ([0.0], [1.0])


def test_int8_zeros_are_decoded_as_zeros_at_any_scale() -> None:
    matrix = np.zeros((3, 8), np.float32)
    matrix[1, 0], matrix[2, 0] = 3e38, 1e-45
    sent = decoded(Int8(5), matrix)
    assert_array_equal(sent[:, 1:], 0)
    assert_array_equal(sent[0], 0)


@pytest.mark.parametrize("dim", [64, 128])
@pytest.mark.parametrize("num_touched", [200, 500])
def test_int8_message_of_matrix_factorization_is_a_quarter_of_the_plain_one(
    dim: int, num_touched: int
) -> None:
    num_items = 1682
    tensors = {
        "vectors": np.ones((num_touched, dim), np.float32),
        "bias": np.ones((num_touched, 1), np.float32),
    }
    layout = of_matrix(tensors["vectors"])
    updates = Updates(layout.clients, layout.weights, layout.offsets, layout.rows, tensors)
    (plain,) = NoCompression(num_items).compress(updates, frozenset(tensors), rng_for)[1]
    (small,) = Int8(num_items).compress(updates, frozenset(tensors), rng_for)[1]
    row_codes = min(num_touched * 2, -(-num_items // 8))
    values = num_touched * dim + num_touched  # one byte per entry
    assert (
        small == 128 + 5 * 4 + row_codes + values + num_touched + 1
    )  # a step per row, one for the bias
    assert plain == 4 * 128 + num_touched * (4 * dim + 4 + 8 + 4)
    assert plain > 4 * small
