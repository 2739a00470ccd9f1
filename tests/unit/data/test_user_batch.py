"""A batch of any clients holds the users of each of them, one client after another."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import Columns
from fedrec_flower.data.user_batch import UserBatch

if TYPE_CHECKING:
    from fedrec_flower.data.prepared import ClientData, Prepared
    from tests.conftest import PrepareSmall

HOLDERS = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 4]  # five clients of twelve users
PARTS = ("train", "validation", "test")
ANY_CLIENTS = pytest.mark.parametrize(
    "clients", [[0, 1, 2, 3, 4], [2, 3], [3], [4, 0, 2], [3, 2, 1], []]
)


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> "Prepared":
    return prepare_small(HOLDERS)


def assert_same_users(batch: UserBatch, data: "ClientData") -> None:
    assert_array_equal(batch.positions, data.first + np.arange(data.num_users))
    assert_array_equal(batch.user_codes, data.user_codes)
    assert_array_equal(batch.attributes, data.attributes)
    for name in PARTS:
        mine, own = getattr(batch, name), getattr(data, name)
        assert_array_equal(mine.offsets, own.offsets)
        assert_array_equal(mine.item, own.item)
        assert_array_equal(mine.rating, own.rating)


@ANY_CLIENTS
def test_each_client_of_a_batch_equals_the_client_alone(
    data: "Prepared", clients: list[int]
) -> None:
    batch = UserBatch.read(data, clients)
    assert batch.num_clients == len(clients)
    for place, client in enumerate(clients):
        alone = data.client(client)
        assert_same_users(batch.slice(place, place + 1), alone)
        assert_same_users(UserBatch.of(alone), alone)
        assert batch.client_of(int(batch.user_offsets[place])) == client
        assert batch.client_of(int(batch.user_offsets[place + 1]) - 1) == client


@ANY_CLIENTS
def test_after_validation_the_training_part_has_both_parts(
    data: "Prepared", clients: list[int]
) -> None:
    batch = UserBatch.read(data, clients)
    later = batch.after_validation()
    assert len(later.validation.item) == 0
    for user in range(batch.num_users):
        both = [part.slice(user, user + 1).item for part in (batch.train, batch.validation)]
        assert_array_equal(later.train.slice(user, user + 1).item, np.concatenate(both))
        assert_array_equal(
            later.test.slice(user, user + 1).item, batch.test.slice(user, user + 1).item
        )


def test_rows_of_positions_are_their_interactions_in_the_whole_part(data: "Prepared") -> None:
    test = data.part(Part.TRAIN)
    positions = np.array([7, 0, 7])
    assert_array_equal(test.item[test.rows_of(positions)], test.take(positions).item)
    expected = np.concatenate([test.slice(user, user + 1).item for user in positions])
    assert_array_equal(test.take(positions).item, expected)


def test_take_keeps_the_latest_items() -> None:
    columns = Columns(np.array([0, 3, 3, 4]), np.array([5, 6, 7, 8], np.int32), None)
    latest = columns.take(np.array([2, 0, 1]), max_items=2)
    assert latest.item.tolist() == [8, 6, 7]
    assert latest.offsets.tolist() == [0, 1, 3, 3]
