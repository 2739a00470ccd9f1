"""A matrix as the product of two thin ones, where that is smaller."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.communication.compression.low_rank import LowRank
from fedrec_flower.core.errors import ConfigError
from tests.helpers.compressing import TABLES, decoded, of_matrix, rng_for

Matrix = NDArray[np.float32]
sizes = st.tuples(st.integers(0, 40), st.integers(1, 40))


def random(shape: tuple[int, int], rank: int | None = None, seed: int = 0) -> Matrix:
    """A matrix of normal numbers, or the product of two of them."""
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.normal(size=shape).astype(np.float32)
    left, right = rng.normal(size=(shape[0], rank)), rng.normal(size=(rank, shape[1]))
    return (left @ right).astype(np.float32)


def low_rank(rank: int, power_iterations: int = 1) -> LowRank:
    return LowRank(50, rank, power_iterations, error_feedback=True)


@given(sizes, st.integers(1, 5), st.integers(0, 5))
def test_a_matrix_of_the_rank_or_below_arrives(shape: tuple[int, int], rank: int, own: int) -> None:
    matrix = random(shape, rank=min(own, rank))
    assert_allclose(decoded(low_rank(rank), matrix), matrix, rtol=1e-3, atol=1e-4)


@given(sizes, st.integers(1, 5), st.integers(0, 2))
def test_what_is_lost_stands_upright_on_what_is_sent(
    shape: tuple[int, int], rank: int, power_iterations: int
) -> None:
    """So a message never makes an update larger, and a debt never grows by sending."""
    matrix = random(shape)
    sent = decoded(low_rank(rank, power_iterations), matrix).astype(np.float64)
    assert np.linalg.norm(sent) <= np.linalg.norm(matrix) * (1 + 1e-5)
    assert abs(((matrix - sent) * sent).sum()) <= 1e-4 * (matrix**2).sum() + 1e-6


@given(sizes, st.integers(1, 5))
def test_where_thin_matrices_are_no_smaller_the_matrix_itself_travels(
    shape: tuple[int, int], rank: int
) -> None:
    matrix, sent = random(shape), decoded(low_rank(rank), random(shape))
    if sum(shape) * rank >= matrix.size:
        assert_array_equal(sent, matrix)
    else:
        assert np.linalg.matrix_rank(sent) <= rank


def test_power_iterations_come_closer_to_the_best_of_the_rank() -> None:
    rng = np.random.default_rng(1)
    decay = 0.8 ** np.arange(30)
    matrix = (np.linalg.qr(rng.normal(size=(50, 30))).Q * decay) @ np.linalg.qr(
        rng.normal(size=(30, 30))
    ).Q
    best = np.linalg.norm(decay[4:])
    lost = [
        np.linalg.norm(decoded(low_rank(4, count), matrix.astype(np.float32)) - matrix)
        for count in (0, 1, 4)
    ]
    assert best * (1 - 1e-5) <= lost[2] < lost[1] < lost[0]
    assert lost[2] < 1.02 * best


def test_the_bytes_are_those_of_the_thin_matrices() -> None:
    compression = LowRank(1682, 4, 1, error_feedback=True)
    _, num_bytes = compression.compress(of_matrix(random((500, 128))), TABLES, rng_for)
    assert num_bytes.tolist() == [128 + 2 * 4 + -(-1682 // 8) + (500 + 128) * 4 * 4]


def test_error_feedback_is_a_choice() -> None:
    assert LowRank(5, 1, 1, error_feedback=True).remembers
    assert not LowRank(5, 1, 1, error_feedback=False).remembers


def test_what_is_no_rank_and_no_number_of_iterations_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"compression\.rank must be at least 1: 0"):
        low_rank(0)
    with pytest.raises(ConfigError, match=r"compression\.power_iterations must not .*: -1"):
        low_rank(1, -1)
