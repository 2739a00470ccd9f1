"""Laws of the client store: privacy, addressed initial values, and snapshots."""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE
from threading import Barrier
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.types import Tensors
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.federation.client import state_store
from fedrec_flower.federation.client.state_store import ClientStore, node_secret
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.mf import MF
from fedrec_flower.models.ncf import NCF
from fedrec_flower.training.batches import ActiveRows
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.model_versions import Versions

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall

# Five clients with 4, 3, 2, 2 and 1 of the twelve users.
HOLDERS = [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 0, 4]
Keeps = Literal["users", "everything"]
EVERY_KEEPING = pytest.mark.parametrize("keeps", ["users", "everything"])


@pytest.fixture
def data(prepare_small: "PrepareSmall") -> Prepared:
    return prepare_small(HOLDERS)


def recommender(keeps: Keeps) -> Recommender:
    if keeps == "users":
        return MF(1, 30, None, "rating", embedding_dim=3, init_std=0.1)
    return NCF(1, 30, None, "ranking", "neumf", 3, [4], init_std=0.1)


def store(folder: Path, data: Prepared, keeps: Keeps = "users", seed: int = 0) -> ClientStore:
    """A store of personal parameters or, as for local_only, of all parameters."""
    model = recommender(keeps)
    every = [name for name, _ in model.named_parameters()]
    names = model.personal_names() if keeps == "users" else every
    return ClientStore(folder, model, names, [], data.client_offsets, seed)


def laid_out(data: Prepared, clients: Sequence[int]) -> tuple[Cohort, ActiveRows]:
    """Clients as the engines see them; each touches the items 4 * client up to 4 * client + 3."""
    cohort = Cohort.gather([data.client(client) for client in clients], spare_held_out=False)
    rows = np.array([4 * client + place for client in clients for place in range(4)])
    return cohort, ActiveRows(np.arange(len(clients) + 1) * 4, rows, [])


def train(one: ClientStore, data: Prepared, clients: Sequence[int], by: float = 1.0) -> Tensors:
    """Add to everything the clients touch, and keep it."""
    cohort, touched = laid_out(data, clients)
    moved = {name: value + np.float32(by) for name, value in one.gather(cohort, touched).items()}
    one.scatter(cohort, touched, moved)
    return moved


def every_client(one: ClientStore, data: Prepared, slot: str = "current") -> list[Tensors]:
    return [one.load(data.client(client), slot) for client in range(data.num_clients)]


def same(one: Sequence[Tensors], other: Sequence[Tensors]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(np.array_equal(a[name], b[name]) for a, b in pairs for name in a)


@EVERY_KEEPING
def test_initial_values_are_independent_of_the_order_of_clients(
    data: Prepared, tmp_path: Path, keeps: Keeps
) -> None:
    forward, backward = (store(tmp_path / name, data, keeps) for name in "ab")
    one = every_client(forward, data)
    other = [backward.load(data.client(client)) for client in reversed(range(5))][::-1]
    assert same(one, other)
    assert not np.array_equal(one[2]["user_embedding.weight"], one[3]["user_embedding.weight"])
    assert not same(one, every_client(store(tmp_path / "c", data, keeps, seed=1), data))


@EVERY_KEEPING
def test_gather_and_load_give_the_same_initial_values(
    data: Prepared, tmp_path: Path, keeps: Keeps
) -> None:
    untouched, trained = (store(tmp_path / name, data, keeps) for name in "ab")
    train(trained, data, [3, 1], by=0.0)
    assert same(every_client(untouched, data), every_client(trained, data))


@EVERY_KEEPING
def test_scatter_changes_only_the_rows_of_the_cohort(
    data: Prepared, tmp_path: Path, keeps: Keeps
) -> None:
    one = store(tmp_path / "a", data, keeps)
    before = every_client(one, data)
    train(one, data, [3, 0])
    for client, (old, new) in enumerate(zip(before, every_client(one, data), strict=True)):
        for name, value in old.items():
            moved = np.zeros(len(value), np.bool_)
            if client in (0, 3):
                is_item = name in recommender(keeps).item_rows
                moved[slice(4 * client, 4 * client + 4) if is_item else ...] = True
            assert_array_equal(new[name][moved], value[moved] + np.float32(1))
            assert_array_equal(new[name][~moved], value[~moved])


@EVERY_KEEPING
def test_store_reads_files_of_another_process(data: Prepared, tmp_path: Path, keeps: Keeps) -> None:
    one = store(tmp_path / "a", data, keeps)
    train(one, data, [2, 4])
    assert same(every_client(one, data), every_client(store(tmp_path / "a", data, keeps), data))


@EVERY_KEEPING
def test_gather_of_several_clients_concatenates_their_parameters(
    data: Prepared, tmp_path: Path, keeps: Keeps
) -> None:
    one = store(tmp_path / "a", data, keeps)
    cohort, touched = laid_out(data, [4, 1, 3])
    gathered = one.gather(cohort, touched)
    for place, client in enumerate([4, 1, 3]):
        for name, whole in one.load(data.client(client)).items():
            if name in recommender(keeps).user_rows:
                own = slice(*cohort.user_offsets[place : place + 2])
                assert_array_equal(gathered[name][own], whole)
            elif name in recommender(keeps).item_rows:
                own = slice(*touched.offsets[place : place + 2])
                assert_array_equal(gathered[name][own], whole[touched.rows[own]])
            else:
                assert_array_equal(gathered[name][place], whole)


@EVERY_KEEPING
@pytest.mark.parametrize("clients", [[1, 2, 3], [4, 0, 2], [3], []])
def test_read_stacks_the_parameters_of_any_clients(
    data: Prepared, tmp_path: Path, keeps: Keeps, clients: list[int]
) -> None:
    one = store(tmp_path / "a", data, keeps)
    train(one, data, [2, 4])
    users = UserBatch.read(data, clients)
    together = one.read(users)
    for place, client in enumerate(clients):
        own = slice(*users.user_offsets[place : place + 2])
        for name, value in one.load(data.client(client)).items():
            is_row = name in recommender(keeps).user_rows
            assert_array_equal(together[name][own if is_row else place], value)
    num_users = sum(data.client(client).num_users for client in clients)
    for name, value in together.items():
        assert len(value) == (num_users if name in recommender(keeps).user_rows else len(clients))


@EVERY_KEEPING
def test_snapshot_is_not_changed_by_later_training(
    data: Prepared, tmp_path: Path, keeps: Keeps
) -> None:
    one = store(tmp_path / "a", data, keeps)
    train(one, data, [0, 2])
    before = every_client(one, data)
    one.snapshot(range(5), "old", 3)
    train(one, data, [0, 1])
    assert same(every_client(one, data, "old"), before)
    assert not same(every_client(one, data), before)
    one.snapshot(range(5), "new", 3)
    assert same(every_client(one, data, "old"), before)
    assert same(every_client(one, data, "new"), every_client(one, data))


def test_snapshot_copies_only_the_clients_of_the_node(data: Prepared, tmp_path: Path) -> None:
    one, other = (store(tmp_path / "a", data) for _ in range(2))
    train(one, data, [0, 1])
    train(other, data, [2, 3, 4])
    one.snapshot(range(2), "old", 3)
    other.snapshot(range(2, 5), "old", 3)
    assert same(every_client(one, data, "old"), every_client(one, data))


@EVERY_KEEPING
def test_load_returns_copies(data: Prepared, tmp_path: Path, keeps: Keeps) -> None:
    one = store(tmp_path / "a", data, keeps)
    train(one, data, [0])
    before = every_client(one, data)
    for value in one.load(data.client(0)).values():
        value[:] = 9
    cohort, touched = laid_out(data, [0])
    for value in one.gather(cohort, touched).values():
        value[:] = 9
    assert same(every_client(one, data), before)


def test_files_are_readable_by_their_owner_only(data: Prepared, tmp_path: Path) -> None:
    one = store(tmp_path / "runs" / "clients", data, "everything")
    train(one, data, [1])
    one.snapshot(range(5), "old", 3)
    one.write_records("per_user_x", np.arange(12), 12, np.zeros(12))
    found = [one.folder, *one.folder.rglob("*")]
    modes = {path: oct(S_IMODE(path.stat().st_mode)) for path in found}
    assert len([path for path in found if path.is_file()]) > 3
    for path, mode in modes.items():
        assert mode == ("0o700" if path.is_dir() else "0o600"), path


def test_write_records_combines_the_rows_of_several_nodes(data: Prepared, tmp_path: Path) -> None:
    one, other = (store(tmp_path / "a", data) for _ in range(2))
    other.write_records("per_user_x", np.arange(11, 7, -1), 12, np.arange(11, 7, -1))
    one.write_records("per_user_x", np.arange(8), 12, np.arange(8))
    assert np.load(tmp_path / "a" / "notes" / "per_user_x.npy").tolist() == list(range(12))


@pytest.mark.parametrize("attempt", range(5))
def test_nodes_can_create_the_same_store_at_the_same_time(
    data: Prepared, tmp_path: Path, attempt: int
) -> None:
    del attempt
    everyone_is_there = Barrier(5, timeout=60)

    def work(client: int) -> Tensors:
        own = store(tmp_path / "a", data, "everything")
        everyone_is_there.wait()
        train(own, data, [client])
        return own.load(data.client(client))

    with ThreadPoolExecutor(5) as pool:
        written = list(pool.map(work, range(5)))
    assert same(written, every_client(store(tmp_path / "a", data, "everything"), data))
    assert not list((tmp_path / "a").rglob(".*")), "scratch files were left behind"


def test_store_that_cannot_be_created_names_the_fix(data: Prepared, tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where a folder should be")
    with pytest.raises(FedrecError, match=r"cannot store personal parameters in .*output_dir"):
        store(tmp_path / "a", data).load(data.client(0))


def test_full_disk_names_the_fix(data: Prepared, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(FedrecError, match=r"cannot store personal parameters in .*free space"):
            store(tmp_path / "a", data).load(data.client(0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_adapted_copy_is_the_global_value_plus_the_update(tmp_path: Path, data: Prepared) -> None:
    name = "item_embedding.weight"
    model = NCF(1, 30, None, "ranking", "gmf", 3, [], init_std=0.1)
    one = ClientStore(tmp_path, model, model.personal_names(), [name], data.client_offsets, 0)
    cohort, touched = laid_out(data, [1, 3])
    shared = {name: np.random.default_rng(2).normal(size=(30, 3)).astype(np.float32)}
    change = {name: np.ones((8, 3), np.float32)}
    given = Versions.single(shared)
    one.store_adapted(cohort, touched, given, change)
    one.snapshot(range(5), "evaluated-0", 3)
    one.store_adapted(cohort, touched, given, {name: 9 * change[name]})  # the snapshot stays
    for client in (1, 3):
        expected = shared[name].copy()
        expected[4 * client : 4 * client + 4] += 1
        assert_array_equal(one.load(data.client(client), "evaluated-0")[name], expected)
    assert name not in one.load(data.client(2), "evaluated-0")  # it never trained
    assert name not in one.gather(*laid_out(data, [1]))  # training begins from the server's


# --- answered rounds -----------------------------------------------------------------------------


def test_mark_answered_is_on_the_disk_when_it_returns(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 5: A page in memory would be lost with the power, and the round be summed twice."""
    flushed, flush = list[list[int]](), np.memmap.flush

    def note(array: "np.memmap[Any, Any]") -> None:
        flush(array)
        flushed.append(array.tolist())

    monkeypatch.setattr(np.memmap, "flush", note)
    store(tmp_path, data).mark_answered([1, 3], 4)
    assert flushed == [[0, 4, 0, 4, 0]]


def test_mark_answered_raises_an_error_if_it_cannot_write(
    tmp_path: Path, data: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Item 5: no two sums of the same parameters are released."""

    def full(_: "np.memmap[Any, Any]") -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.memmap, "flush", full)
    with pytest.raises(FedrecError, match=r"cannot write to .*No space left"):
        store(tmp_path, data).mark_answered([1], 4)


# --- the node's secret --------------------------------------------------------------------------


def test_node_secret_is_created_once_by_concurrent_calls(tmp_path: Path) -> None:
    folder, start = tmp_path / "run" / "clients", Barrier(8)

    def ask(_: int) -> bytes:
        start.wait()
        return node_secret(folder).at("test", "role", 0)

    with ThreadPoolExecutor(8) as pool:
        told = set(pool.map(ask, range(8)))
    assert len(told) == 1
    assert {node_secret(folder).at("test", "role", 0)} == told
    assert node_secret(tmp_path / "another").at("test", "role", 0) not in told
    assert [path.name for path in folder.iterdir()] == ["secret"]


def test_node_secret_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    """Item 1: the server knows no draw of a client."""
    node_secret(tmp_path / "run" / "clients")
    file = tmp_path / "run" / "clients" / "secret"
    assert S_IMODE(file.stat().st_mode) == 0o600
    assert len(file.read_bytes()) == 32


def test_damaged_or_lost_secret_is_an_error(tmp_path: Path) -> None:
    node_secret(tmp_path)
    (tmp_path / "secret").write_bytes(b"short")
    with pytest.raises(FedrecError, match=r"secret cannot be used \(a secret has 32 bytes, not 5"):
        node_secret(tmp_path)
    (tmp_path / "secret").unlink()
    (tmp_path / "current").mkdir()
    with pytest.raises(FedrecError, match="secret is missing, though the clients' parameters"):
        node_secret(tmp_path)
    assert not (tmp_path / "secret").exists()


# --- snapshots copy what changed ----------------------------------------------------------------


class Killed(Exception):  # noqa: N818  # no error of the program
    """The process ends here."""


@EVERY_KEEPING
@given(
    events=st.lists(
        st.one_of(
            st.tuples(
                st.just("train"), st.lists(st.integers(0, 4), unique=True, min_size=1, max_size=3)
            ),
            st.tuples(st.just("snapshot"), st.sampled_from(["one", "other"])),
            st.tuples(st.just("killed"), st.sampled_from(["one", "other"])),
        ),
        max_size=9,
    )
)
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_snapshot_equals_the_state_after_any_history(
    data: Prepared,
    keeps: Keeps,
    events: list[tuple[str, Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("store")
    one = store(folder, data, keeps)
    for round_, (event, value) in enumerate(events):
        if event == "train":
            train(one, data, value, by=round_ + 1.0)
        elif event == "killed":
            killed_in_a_snapshot(one, value, round_)
            one = store(folder, data, keeps)  # the next process
        if event != "train":
            one.snapshot(range(5), value, round_)
            assert same(every_client(one, data, value), every_client(one, data))


def killed_in_a_snapshot(one: ClientStore, slot: str, round_: int) -> None:
    """Die after the first client is copied, as far as a slot is copied by client."""

    def copy_one(source: NDArray[Any], target: NDArray[Any], clients: NDArray[np.int64]) -> None:
        target[clients[:1]] = source[clients[:1]]
        raise Killed

    with pytest.MonkeyPatch.context() as patch, suppress(Killed):
        patch.setattr(state_store, "_copy_entries", copy_one)
        one.snapshot(range(5), slot, round_)


def test_a_snapshot_writes_only_clients_that_changed(data: Prepared, tmp_path: Path) -> None:
    one = store(tmp_path, data, "everything")
    train(one, data, [0, 1, 2])
    one.snapshot(range(5), "old", 1)
    train(one, data, [1])
    file = tmp_path / "old" / "item_embedding.weight.npy"
    written = np.load(file, mmap_mode="r+")
    written[:] = 7
    one.snapshot(range(5), "old", 2)
    assert [client for client in range(5) if not (written[client] == 7).all()] == [1]


def test_a_state_without_marks_of_an_earlier_version_is_copied_whole(
    data: Prepared, tmp_path: Path
) -> None:
    one = store(tmp_path, data)
    train(one, data, [0, 1, 2])
    one.snapshot(range(5), "old", 1)
    shutil.rmtree(tmp_path / "current")  # as a resumed run has it
    shutil.copytree(tmp_path / "old", tmp_path / "current")
    (tmp_path / "current" / "change.npy").unlink()
    again = store(tmp_path, data)
    again.snapshot(range(5), "new", 2)
    assert same(every_client(again, data, "new"), every_client(again, data, "old"))


def test_a_run_that_returns_to_a_snapshot_copies_what_it_trains_again(
    data: Prepared, tmp_path: Path
) -> None:
    one = store(tmp_path, data)
    train(one, data, [0, 1])
    one.snapshot(range(5), "old", 1)
    train(one, data, [1], by=5.0)
    one.snapshot(range(5), "new", 2)
    shutil.rmtree(tmp_path / "current")
    shutil.copytree(tmp_path / "old", tmp_path / "current")
    again = store(tmp_path, data)
    train(again, data, [1], by=9.0)
    again.snapshot(range(5), "new", 2)
    assert same(every_client(again, data, "new"), every_client(again, data))
