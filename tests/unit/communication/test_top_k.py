"""Top-k compression: the k largest entries are sent, the others are decoded as zero."""

from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.communication.compression.top_k import TopK
from fedrec_flower.core.errors import ConfigError
from tests.helpers.compressing import TABLES, cohort, decoded, of_matrix, rng_for

Matrix = NDArray[np.float32]
# A few fixed magnitudes, so that ties occur, or any finite value.
values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 1e-45, -3e38]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=values)


def by_sorting(matrix: Matrix, count: int) -> Matrix:
    """Keep the largest entries, found by sorting; ties go to the first entries."""
    flat = matrix.reshape(-1)
    chosen = np.argsort(-np.abs(flat), kind="stable")[:count]
    kept = np.zeros_like(flat)
    kept[chosen] = flat[chosen]
    return kept.reshape(matrix.shape)


@given(matrices, st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.99, 1.0]))
def test_top_k_keeps_exactly_the_largest_entries(matrix: Matrix, share: float) -> None:
    sent = decoded(TopK(12, share, error_feedback=False), matrix)
    assert_array_equal(sent, by_sorting(matrix, ceil(share * matrix.size)))


def test_top_k_counts_per_parameter_and_client() -> None:
    updates = cohort([[1, 2, 3], [4], []])
    sent, _ = TopK(30, 0.25, error_feedback=False).compress(updates, TABLES, rng_for)
    table = np.split(sent.tensors["table"], updates.offsets[1:-1])
    assert [np.count_nonzero(rows) for rows in table] == [0.25 * 3 * 12, 0.25 * 12, 0]
    assert np.count_nonzero(sent.tensors["matrix"], axis=(1, 2)).tolist() == [23] * 3  # of 90
    assert np.count_nonzero(sent.tensors["vector"], axis=1).tolist() == [1] * 3  # of 3


@pytest.mark.parametrize(
    ("share", "positions"),
    [(0.1, 64_000 // 8), (0.01, 640 * 2)],  # a bitmap, or two bytes per sent entry
)
def test_top_k_message_holds_values_and_positions(share: float, positions: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(500, 128)).astype(np.float32)
    compression = TopK(1682, share, error_feedback=True)
    _, num_bytes = compression.compress(of_matrix(matrix), TABLES, rng_for)
    rows = -(-1682 // 8)
    assert num_bytes.tolist() == [128 + 3 * 4 + rows + positions + 4 * int(share * 64_000)]


def test_top_k_error_feedback_is_optional() -> None:
    assert TopK(5, 0.1, error_feedback=True).uses_error_feedback
    assert not TopK(5, 0.1, error_feedback=False).uses_error_feedback


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01])
def test_top_k_rejects_an_impossible_share(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"compression\.share={share} is impossible: give"):
        TopK(5, share, error_feedback=True)
