"""The largest entries travel, exactly so many, and the others arrive as zero."""

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
# Few different magnitudes, so that there are ties; and any there may be.
values = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.5, 1e-45, -3e38]) | st.floats(
    width=32, allow_nan=False, allow_infinity=False
)
matrices = arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=values)


def plainly(matrix: Matrix, count: int) -> Matrix:
    """The largest entries by sorting; of equal magnitudes the first."""
    flat = matrix.reshape(-1)
    chosen = np.argsort(-np.abs(flat), kind="stable")[:count]
    kept = np.zeros_like(flat)
    kept[chosen] = flat[chosen]
    return kept.reshape(matrix.shape)


@given(matrices, st.sampled_from([0.01, 0.1, 0.25, 0.5, 0.99, 1.0]))
def test_exactly_the_largest_entries_arrive(matrix: Matrix, share: float) -> None:
    sent = decoded(TopK(12, share, error_feedback=False), matrix)
    assert_array_equal(sent, plainly(matrix, ceil(share * matrix.size)))


def test_so_many_entries_of_each_parameter_and_client() -> None:
    updates = cohort([[1, 2, 3], [4], []])
    sent, _ = TopK(30, 0.25, error_feedback=False).compress(updates, TABLES, rng_for)
    table = np.split(sent.tensors["table"], updates.offsets[1:-1])
    assert [np.count_nonzero(own) for own in table] == [0.25 * 3 * 12, 0.25 * 12, 0]
    assert np.count_nonzero(sent.tensors["matrix"], axis=(1, 2)).tolist() == [23] * 3  # of 90
    assert np.count_nonzero(sent.tensors["vector"], axis=1).tolist() == [1] * 3  # of 3


@pytest.mark.parametrize(
    ("share", "positions"),
    [(0.1, 64_000 // 8), (0.01, 640 * 2)],  # a bit an entry, or two bytes for each that is sent
)
def test_the_bytes_are_values_and_where_they_stand(share: float, positions: int) -> None:
    matrix = np.random.default_rng(0).normal(size=(500, 128)).astype(np.float32)
    compression = TopK(1682, share, error_feedback=True)
    _, num_bytes = compression.compress(of_matrix(matrix), TABLES, rng_for)
    rows = -(-1682 // 8)
    assert num_bytes.tolist() == [128 + 3 * 4 + rows + positions + 4 * int(share * 64_000)]


def test_error_feedback_is_a_choice() -> None:
    assert TopK(5, 0.1, error_feedback=True).remembers
    assert not TopK(5, 0.1, error_feedback=False).remembers


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01])
def test_what_is_no_share_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"compression\.share must be in \(0, 1\]: {share}"):
        TopK(5, share, error_feedback=True)
