"""Laws of every compression: `compress` agrees with `encode` and `decode`."""

from io import BytesIO

import numpy as np
import pytest
from flwr.app import Array
from hypothesis import given
from numpy.testing import assert_array_equal

from fedrec_flower.communication.compression.base import Compression, NoCompression
from fedrec_flower.communication.compression.sparse_rows import SparseRows
from fedrec_flower.communication.packing import Cost
from fedrec_flower.core.updates import ROW_WEIGHT
from tests.helpers.compressing import (
    COMPRESSIONS,
    EVERY_ROW,
    NUM_ITEMS,
    SHAPES,
    TABLES,
    alone,
    cohort,
    cohorts,
    rng_for,
)

EVERY = pytest.mark.parametrize("compression", COMPRESSIONS.values(), ids=list(COMPRESSIONS))
FRAMED = [name for name in COMPRESSIONS if name != "none"]


@EVERY
@given(rows=cohorts)
def test_compress_reports_the_length_of_each_message(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    _, num_bytes = compression.compress(updates, TABLES, rng_for)
    messages = compression.encode(updates, TABLES, rng_for)
    assert num_bytes.dtype == np.int64
    assert num_bytes.tolist() == [len(message) for message in messages]


@EVERY
@given(rows=cohorts)
def test_compress_returns_the_decoded_values_to_the_bit(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    sent, _ = compression.compress(updates, TABLES, rng_for)
    for place, message in enumerate(compression.encode(updates, TABLES, rng_for)):
        decoded_rows, tensors = compression.decode(message, SHAPES, TABLES)
        assert decoded_rows.tolist() == rows[place]
        assert tensors.keys() == SHAPES.keys()
        for name, expected in alone(sent, place).tensors.items():
            assert tensors[name].dtype == np.float32
            assert_array_equal(tensors[name], expected)


@EVERY
@given(rows=cohorts)
def test_message_does_not_depend_on_other_clients_of_the_node(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    together, num_bytes = compression.compress(updates, TABLES, rng_for)
    for place in range(len(rows)):
        separate, client_bytes = compression.compress(alone(updates, place), TABLES, rng_for)
        assert client_bytes.tolist() == [num_bytes[place]]
        for name, expected in alone(together, place).tensors.items():
            assert_array_equal(separate.tensors[name], expected)


@EVERY
def test_compress_changes_only_values_and_not_its_input(compression: Compression) -> None:
    updates, same = cohort([[1, 4], EVERY_ROW]), cohort([[1, 4], EVERY_ROW])
    sent, _ = compression.compress(updates, TABLES, rng_for)
    for field in ("clients", "weights", "offsets", "rows"):
        assert_array_equal(getattr(sent, field), getattr(same, field))
    for name, array in same.tensors.items():
        assert_array_equal(updates.tensors[name], array)
        assert sent.tensors[name].shape == array.shape


@EVERY
def test_cohort_without_touched_rows_sends_the_other_parameters(compression: Compression) -> None:
    sent, num_bytes = compression.compress(cohort([[], []]), TABLES, rng_for)
    assert sent.tensors["table"].shape == (0, *SHAPES["table"][1:])
    assert np.any(sent.tensors["matrix"])
    assert (num_bytes > 0).all()


@EVERY
def test_empty_cohort_sends_no_messages(compression: Compression) -> None:
    sent, num_bytes = compression.compress(cohort([]), TABLES, rng_for)
    assert len(sent.clients) == len(num_bytes) == 0


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SHAPES)
def test_values_that_are_not_finite_stay_not_finite(
    compression: Compression, name: str, value: float
) -> None:
    updates = cohort([EVERY_ROW, EVERY_ROW])
    updates.tensors[name].reshape(-1)[0] = value
    sent, _ = compression.compress(updates, TABLES, rng_for)
    assert not np.isfinite(alone(sent, 0).tensors[name]).all()
    assert all(np.isfinite(array).all() for array in alone(sent, 1).tensors.values())


@pytest.mark.parametrize("name", FRAMED)
def test_message_has_the_bytes_of_a_flower_array(name: str) -> None:
    for message in COMPRESSIONS[name].encode(cohort([[], [2, 3], EVERY_ROW]), TABLES, rng_for):
        assert Array(np.load(BytesIO(message))).data == message


@given(rows=cohorts)
def test_no_compression_keeps_values_and_costs_a_plain_message(
    rows: list[list[int]],
) -> None:
    updates = cohort(rows)
    sent, num_bytes = COMPRESSIONS["none"].compress(updates, TABLES, rng_for)
    whole = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    cost = Cost.of({**whole, ROW_WEIGHT: np.zeros(NUM_ITEMS)}, [*TABLES, ROW_WEIGHT])
    assert sent is updates
    assert_array_equal(num_bytes, cost.least(np.array([len(touched) for touched in rows])))


@given(rows=cohorts)
def test_sparse_rows_are_lossless_and_smaller_than_a_plain_message(
    rows: list[list[int]],
) -> None:
    updates = cohort(rows)
    sent, num_bytes = SparseRows(NUM_ITEMS).compress(updates, TABLES, rng_for)
    _, plain_bytes = NoCompression(NUM_ITEMS).compress(updates, TABLES, rng_for)
    for name, array in updates.tensors.items():
        assert_array_equal(sent.tensors[name], array)
    assert (num_bytes < plain_bytes).all()
