"""Laws of every compression: what is counted and decoded is what a real message says."""

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
def test_the_bytes_are_the_length_of_each_clients_message(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    _, num_bytes = compression.compress(updates, TABLES, rng_for)
    messages = compression.encode(updates, TABLES, rng_for)
    assert num_bytes.dtype == np.int64
    assert num_bytes.tolist() == [len(message) for message in messages]


@EVERY
@given(rows=cohorts)
def test_the_values_are_what_the_messages_say_to_the_bit(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    sent, _ = compression.compress(updates, TABLES, rng_for)
    for place, message in enumerate(compression.encode(updates, TABLES, rng_for)):
        found, tensors = compression.decode(message, SHAPES, TABLES)
        assert found.tolist() == rows[place]
        assert tensors.keys() == SHAPES.keys()
        for name, expected in alone(sent, place).tensors.items():
            assert tensors[name].dtype == np.float32
            assert_array_equal(tensors[name], expected)


@EVERY
@given(rows=cohorts)
def test_a_client_sends_the_same_whoever_else_its_node_hosts(
    compression: Compression, rows: list[list[int]]
) -> None:
    updates = cohort(rows)
    together, num_bytes = compression.compress(updates, TABLES, rng_for)
    for place in range(len(rows)):
        apart, own_bytes = compression.compress(alone(updates, place), TABLES, rng_for)
        assert own_bytes.tolist() == [num_bytes[place]]
        for name, expected in alone(together, place).tensors.items():
            assert_array_equal(apart.tensors[name], expected)


@EVERY
def test_only_values_change_and_those_of_the_client_do_not(compression: Compression) -> None:
    updates, same = cohort([[1, 4], EVERY_ROW]), cohort([[1, 4], EVERY_ROW])
    sent, _ = compression.compress(updates, TABLES, rng_for)
    for field in ("clients", "weights", "offsets", "rows"):
        assert_array_equal(getattr(sent, field), getattr(same, field))
    for name, array in same.tensors.items():
        assert_array_equal(updates.tensors[name], array)
        assert sent.tensors[name].shape == array.shape


@EVERY
def test_a_cohort_that_touched_nothing_still_sends_the_rest(compression: Compression) -> None:
    sent, num_bytes = compression.compress(cohort([[], []]), TABLES, rng_for)
    assert sent.tensors["table"].shape == (0, *SHAPES["table"][1:])
    assert np.any(sent.tensors["matrix"])
    assert (num_bytes > 0).all()


@EVERY
def test_nobody_sends_nothing(compression: Compression) -> None:
    sent, num_bytes = compression.compress(cohort([]), TABLES, rng_for)
    assert len(sent.clients) == len(num_bytes) == 0


@EVERY
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_not_finite_arrives_as_such_for_the_server_to_refuse(
    compression: Compression, name: str, value: float
) -> None:
    updates = cohort([EVERY_ROW, EVERY_ROW])
    updates.tensors[name].reshape(-1)[0] = value
    sent, _ = compression.compress(updates, TABLES, rng_for)
    assert not np.isfinite(alone(sent, 0).tensors[name]).all()
    assert all(np.isfinite(array).all() for array in alone(sent, 1).tensors.values())


@pytest.mark.parametrize("name", FRAMED)
def test_a_message_is_an_array_as_flower_carries_it(name: str) -> None:
    for message in COMPRESSIONS[name].encode(cohort([[], [2, 3], EVERY_ROW]), TABLES, rng_for):
        assert Array(np.load(BytesIO(message))).data == message


@given(rows=cohorts)
def test_without_compression_values_and_bytes_are_those_of_a_plain_message(
    rows: list[list[int]],
) -> None:
    updates = cohort(rows)
    sent, num_bytes = COMPRESSIONS["none"].compress(updates, TABLES, rng_for)
    whole = {name: np.zeros(shape, np.float32) for name, shape in SHAPES.items()}
    cost = Cost.of({**whole, ROW_WEIGHT: np.zeros(NUM_ITEMS)}, [*TABLES, ROW_WEIGHT])
    assert sent is updates
    assert_array_equal(num_bytes, cost.least(np.array([len(own) for own in rows])))


@given(rows=cohorts)
def test_sparse_rows_lose_nothing_and_never_cost_more_than_a_plain_message(
    rows: list[list[int]],
) -> None:
    updates = cohort(rows)
    sent, num_bytes = SparseRows(NUM_ITEMS).compress(updates, TABLES, rng_for)
    _, plain_bytes = NoCompression(NUM_ITEMS).compress(updates, TABLES, rng_for)
    for name, array in updates.tensors.items():
        assert_array_equal(sent.tensors[name], array)
    assert (num_bytes < plain_bytes).all()
