"""Laws of per-client state: separate per client, zero at first, part of snapshots."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.federation.client.state_store import ClientStore
from fedrec_flower.models.mf import MF
from fedrec_flower.strategies.client_state import ClientState

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall

TABLE, DENSE = "item_embedding.weight", "global_bias"
SHAPES = {TABLE: (30, 3), DENSE: (1,)}


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> Prepared:
    return prepare_small([0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 4])


def store(folder: Path, data: Prepared) -> ClientStore:
    model = MF(1, 30, None, "rating", embedding_dim=3, init_std=0.1)
    return ClientStore(folder, model, model.personal_names(), [], data.client_offsets, 0)


def client_state(one: ClientStore, kind: str = "control") -> ClientState:
    return one.client_state(kind, SHAPES, frozenset({TABLE}))


def layout(touched: dict[int, Sequence[int]]) -> Updates:
    """Clients and the rows they touch."""
    rows = [row for own in touched.values() for row in own]
    offsets = np.cumsum([0, *(len(own) for own in touched.values())])
    codes = np.array(list(touched), np.int64)
    return Updates(codes, np.ones(len(codes)), offsets, np.array(rows, np.int64), {})


def test_client_state_is_zero_before_it_is_written(data: Prepared, tmp_path: Path) -> None:
    kept, asked = client_state(store(tmp_path, data)), layout({2: [1, 5], 0: [3]})
    assert_array_equal(kept.read(TABLE, asked), np.zeros((3, 3)))
    assert_array_equal(kept.read(DENSE, asked), np.zeros((2, 1)))


def test_client_state_write_changes_only_the_given_clients_and_rows(
    data: Prepared, tmp_path: Path
) -> None:
    kept, written = client_state(store(tmp_path, data)), layout({2: [1, 5], 0: [3]})
    kept.write(TABLE, written, np.arange(9, dtype=np.float32).reshape(3, 3) + 1)
    kept.write(DENSE, written, np.array([[7.0], [8.0]], np.float32))
    again = client_state(store(tmp_path, data))  # another process
    found = again.read(TABLE, layout({0: [3, 5], 2: [1, 3, 5], 1: [1]}))
    assert_array_equal(found, [[7, 8, 9], [0] * 3, [1, 2, 3], [0] * 3, [4, 5, 6], [0] * 3])
    assert_array_equal(again.read(DENSE, layout({0: [], 1: [], 2: []})), [[8], [0], [7]])


def test_client_state_read_returns_a_copy(data: Prepared, tmp_path: Path) -> None:
    kept, asked = client_state(store(tmp_path, data)), layout({1: [4]})
    kept.read(TABLE, asked)[...] = 5
    assert not kept.read(TABLE, asked).any()


def test_client_states_of_different_kinds_are_separate(data: Prepared, tmp_path: Path) -> None:
    one, asked = store(tmp_path, data), layout({1: [4]})
    control, debt = client_state(one), client_state(one, "debt")
    control.write(TABLE, asked, np.ones((1, 3), np.float32))
    assert not debt.read(TABLE, asked).any()


def test_snapshot_includes_client_state(data: Prepared, tmp_path: Path) -> None:
    one, asked = store(tmp_path, data), layout({1: [4], 3: [4]})
    kept = client_state(one)
    kept.write(TABLE, asked, np.ones((2, 3), np.float32))
    one.snapshot(range(3), "evaluated-0", 3)
    kept.write(TABLE, asked, np.full((2, 3), 9, np.float32))
    taken = np.load(tmp_path / "evaluated-0" / f"control.{TABLE}.npy")
    assert_array_equal(taken[1, 4], [1, 1, 1])
    assert not taken[3].any()  # another node hosts it


def test_client_state_is_readable_by_its_owner_only(data: Prepared, tmp_path: Path) -> None:
    kept, asked = client_state(store(tmp_path / "store", data)), layout({1: [4]})
    kept.write(TABLE, asked, np.ones((1, 3), np.float32))
    file = tmp_path / "store" / "current" / f"control.{TABLE}.npy"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.parent.stat().st_mode & 0o777 == 0o700
