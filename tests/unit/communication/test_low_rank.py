"""Low-rank compression: the product of two thin matrices, where that is smaller."""

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
    """Return a normal random matrix, or the product of two of them of the given rank."""
    rng = np.random.default_rng(seed)
    if rank is None:
        return rng.normal(size=shape).astype(np.float32)
    left, right = rng.normal(size=(shape[0], rank)), rng.normal(size=(rank, shape[1]))
    return (left @ right).astype(np.float32)


def low_rank(rank: int, power_iterations: int = 1) -> LowRank:
    return LowRank(50, rank, power_iterations, error_feedback=True)


@given(sizes, st.integers(1, 5), st.integers(0, 5))
def test_low_rank_is_exact_up_to_its_rank(
    shape: tuple[int, int], rank: int, matrix_rank: int
) -> None:
    matrix = random(shape, rank=min(matrix_rank, rank))
    assert_allclose(decoded(low_rank(rank), matrix), matrix, rtol=1e-3, atol=1e-4)


@given(sizes, st.integers(1, 5), st.integers(0, 2))
def test_low_rank_error_is_orthogonal_to_the_decoded_matrix(
    shape: tuple[int, int], rank: int, power_iterations: int
) -> None:
    """Hence a message is never larger than the update, and sending never grows the residual."""
    matrix = random(shape)
    sent = decoded(low_rank(rank, power_iterations), matrix).astype(np.float64)
    assert np.linalg.norm(sent) <= np.linalg.norm(matrix) * (1 + 1e-5)
    assert abs(((matrix - sent) * sent).sum()) <= 1e-4 * (matrix**2).sum() + 1e-6


@given(sizes, st.integers(1, 5))
def test_low_rank_sends_the_matrix_unless_factors_are_smaller(
    shape: tuple[int, int], rank: int
) -> None:
    matrix, sent = random(shape), decoded(low_rank(rank), random(shape))
    if sum(shape) * rank >= matrix.size:
        assert_array_equal(sent, matrix)
    else:
        assert np.linalg.matrix_rank(sent) <= rank


def test_power_iterations_approach_the_best_low_rank_error() -> None:
    rng = np.random.default_rng(1)
    decay = 0.8 ** np.arange(30)
    matrix = (np.linalg.qr(rng.normal(size=(50, 30))).Q * decay) @ np.linalg.qr(
        rng.normal(size=(30, 30))
    ).Q
    best = np.linalg.norm(decay[4:])
    error = [
        np.linalg.norm(decoded(low_rank(4, count), matrix.astype(np.float32)) - matrix)
        for count in (0, 1, 4)
    ]
    assert best * (1 - 1e-5) <= error[2] < error[1] < error[0]
    assert error[2] < 1.02 * best


def test_low_rank_message_has_the_size_of_the_factors() -> None:
    compression = LowRank(1682, 4, 1, error_feedback=True)
    _, num_bytes = compression.compress(of_matrix(random((500, 128))), TABLES, rng_for)
    assert num_bytes.tolist() == [128 + 2 * 4 + -(-1682 // 8) + (500 + 128) * 4 * 4]


def test_low_rank_error_feedback_is_optional() -> None:
    assert LowRank(5, 1, 1, error_feedback=True).uses_error_feedback
    assert not LowRank(5, 1, 1, error_feedback=False).uses_error_feedback


def test_low_rank_rejects_an_impossible_rank_or_number_of_iterations() -> None:
    with pytest.raises(ConfigError, match=r"compression\.rank=0 is impossible: give 1 or more"):
        low_rank(0)
    with pytest.raises(ConfigError, match=r"compression\.power_iterations=-1 is impossible"):
        low_rank(1, -1)
