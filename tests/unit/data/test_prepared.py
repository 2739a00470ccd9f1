"""Laws of the prepared folder: nothing is lost on the way to the clients, and it is whole."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.interactions import Interactions, Part, Partition, Split
from fedrec_flower.data.prepare import prepare, reassign_training_users
from fedrec_flower.data.prepared import Prepared
from fedrec_flower.data.splits.base import cut, num_later, order_in_time
from fedrec_flower.data.tie_breaking import tie_hash

Cooked = tuple[Interactions, Split, Partition, str, pd.DataFrame]
Row = tuple[int, float, int]  # item, rating, time


@st.composite
def federations(draw: st.DrawFn) -> Cooked:
    """Users with up to six interactions each, in any part, held by any client."""
    num_users = draw(st.integers(2, 6))
    histories = [draw(st.sets(st.integers(0, 9), max_size=6)) for _ in range(num_users)]
    histories[0] |= {0}
    rows = [(user, item) for user, items in enumerate(histories) for item in sorted(items)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    user, item = np.array(rows, np.int32).T
    part = rng.integers(0, 3, len(rows)).astype(np.int8)
    part[0] = Part.TRAIN
    data = Interactions(
        user=user,
        item=item,
        rating=rng.integers(1, 6, len(rows)).astype(np.float32),
        timestamp=rng.integers(0, 4, len(rows)),
        user_ids=np.array([f"user {code}" for code in range(num_users)]),
        item_ids=np.arange(10) * 3,
        items=pd.DataFrame({"title": [f"T{code}" for code in range(10)]}),
        name="drawn",
    )
    num_clients = draw(st.integers(1, num_users))
    holder = np.arange(num_users) % num_clients
    partition = Partition(rng.permutation(holder).astype(np.int32), np.arange(num_clients))
    clients = pd.DataFrame({"client": np.arange(num_clients)})
    return data, Split(part), partition, "digest", clients


def cook_once(cooked: Cooked, name: str = "recipe", folder: Path | None = None) -> Prepared:
    return prepare(folder or Path(), {"name": name}, lambda: cooked)


def naive(cooked: Cooked, client: int, part: Part) -> dict[int, list[Row]]:
    """What a client's users have in a part, by a plain loop; by time, ties as splits break them."""
    data, split, partition, *_ = cooked
    held: dict[int, list[Row]] = {}
    assert data.rating is not None
    assert data.timestamp is not None
    for user in range(data.num_users):
        if partition.client_of_user[user] == client:
            rows = np.flatnonzero((data.user == user) & (split.part == part))
            order = np.lexsort((tie_hash(data, rows), data.timestamp[rows]))
            held[user] = [
                (int(data.item[r]), float(data.rating[r]), int(data.timestamp[r]))
                for r in rows[order]
            ]
    return held


@settings(max_examples=8)
@given(federations())
def test_every_client_gets_its_own_interactions_and_no_other(cooked: Cooked) -> None:
    with TemporaryDirectory() as folder:
        prepared = cook_once(cooked, folder=Path(folder))
        for client in range(prepared.num_clients):
            data = prepared.client(client)
            parts = zip(Part, (data.train, data.validation, data.test), strict=True)
            for part, columns in parts:
                expected = naive(cooked, client, part)
                assert data.user_codes.tolist() == list(expected)
                assert columns.rating is not None
                for place, rows in enumerate(expected.values()):
                    one = columns.slice(place, place + 1)
                    assert one.rating is not None
                    assert one.item.tolist() == [item for item, _, _ in rows]
                    assert one.rating.tolist() == [rating for _, rating, _ in rows]
                owner = [place for place, rows in enumerate(expected.values()) for _ in rows]
                assert columns.users().tolist() == owner


@settings(max_examples=8)
@given(federations())
def test_training_goes_on_into_what_the_split_holds_out(cooked: Cooked) -> None:
    data, _, partition, digest, clients = cooked
    data = replace(data, rating=None)  # a drawn split may leave nothing to train on
    order = order_in_time(data, "hash")
    split = cut(num_later(data.user, order), 1, 1)
    with TemporaryDirectory() as folder:
        prepared = cook_once((data, split, partition, digest, clients), folder=Path(folder))
        for place, user in enumerate(prepared.user_codes.tolist()):
            parts = [prepared.part(part).slice(place, place + 1).item for part in Part]
            assert (
                np.concatenate(parts).tolist()
                == data.item[order][data.user[order] == user].tolist()
            )


@settings(max_examples=8)
@given(federations())
def test_the_folder_gives_back_what_went_in(cooked: Cooked) -> None:
    data, split, partition, digest, clients = cooked
    assert data.rating is not None
    with TemporaryDirectory() as folder:
        prepared = cook_once(cooked, folder=Path(folder))
        assert prepared.user_ids.tolist() == data.user_ids.tolist()
        assert prepared.item_ids.tolist() == data.item_ids.tolist()
        assert prepared.items["title"].tolist() == data.items["title"].tolist()
        assert prepared.clients["client"].tolist() == clients["client"].tolist()
        trained = data.rating[split.rows(Part.TRAIN)]
        assert prepared.rating_range == (trained.min(), trained.max())
        assert prepared.split_sha256 == digest
        assert prepared.name == data.name
        sizes = (prepared.num_users, prepared.num_items, prepared.num_clients)
        assert sizes == (data.num_users, data.num_items, partition.num_clients)
        for part in Part:
            assert len(prepared.part(part).item) == len(split.rows(part))


@settings(max_examples=8)
@given(federations(), st.data())
def test_neighbouring_clients_read_as_one_hold_what_each_of_them_holds(
    cooked: Cooked, drawn: st.DataObject
) -> None:
    with TemporaryDirectory() as folder:
        prepared = cook_once(cooked, folder=Path(folder))
        first = drawn.draw(st.integers(0, prepared.num_clients - 1))
        size = drawn.draw(st.integers(1, prepared.num_clients - first))
        together = prepared.client(first, size)
        each = [prepared.client(client) for client in range(first, first + size)]
        assert together.user_codes.tolist() == [c for one in each for c in one.user_codes]
        assert together.train.item.tolist() == [i for one in each for i in one.train.item]
        assert len(together) == sum(map(len, each))
        assert together.first == each[0].first


@settings(max_examples=10)
@given(st.lists(st.integers(1, 400), min_size=1, max_size=12))
def test_nodes_share_the_clients_in_contiguous_balanced_ranges(sizes: list[int]) -> None:
    with TemporaryDirectory() as folder:
        prepared = cook_once(clients_of_sizes(sizes), folder=Path(folder))
        cost = np.array(sizes) + 50
        for num_nodes in range(1, len(sizes) + 1):
            hosted = [prepared.hosted_by(node, num_nodes) for node in range(num_nodes)]
            assert [client for range_ in hosted for client in range_] == list(range(len(sizes)))
            assert all(len(range_) > 0 for range_ in hosted)
            heaviest = max(cost[range_].sum() for range_ in hosted)
            assert heaviest <= cost.sum() / num_nodes + cost.max()


def clients_of_sizes(sizes: Sequence[int]) -> Cooked:
    """Clients of one user each, with so many training interactions."""
    user = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    item = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
    holder = np.arange(len(sizes), dtype=np.int32)
    data = Interactions(user, item, None, None, holder, np.arange(400))
    split = Split(np.zeros(len(user), np.int8))
    return data, split, Partition(holder, holder), "digest", pd.DataFrame()


@pytest.fixture
def cooked(small_data: Interactions) -> Cooked:
    holder = np.arange(small_data.num_users, dtype=np.int32) % 5
    split = Split((np.arange(len(small_data)) % 3).astype(np.int8))
    clients = pd.DataFrame({"client": np.arange(5)})
    return small_data, split, Partition(holder, np.arange(5)), "digest", clients


def test_implicit_data_without_times_stay_so(cooked: Cooked, tmp_path: Path) -> None:
    implicit = replace(cooked[0], rating=None, timestamp=None)
    prepared = prepare(tmp_path, {}, lambda: (implicit, *cooked[1:]))
    assert prepared.rating_range is None
    assert prepared.client(2).train.rating is None
    assert not prepared.timed
    assert cook_once(cooked, "timed", tmp_path).timed


class Kitchen:
    """Cooks, and counts how often."""

    def __init__(self, cooked: Cooked) -> None:
        self.cooked, self.times = cooked, 0

    def __call__(self) -> Cooked:
        self.times += 1
        return self.cooked


def test_a_whole_folder_is_cooked_once_and_another_recipe_is_another_folder(
    cooked: Cooked, tmp_path: Path
) -> None:
    kitchen = Kitchen(cooked)
    one, again = (prepare(tmp_path, {"seed": 1}, kitchen) for _ in range(2))
    assert kitchen.times == 1
    assert one.path == again.path
    assert prepare(tmp_path, {"seed": 2}, kitchen).path != one.path
    assert kitchen.times == 2


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def remove(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize("harm", [shorten, remove])
def test_a_folder_that_lost_a_byte_or_a_file_is_cooked_again(
    cooked: Cooked, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    kitchen = Kitchen(cooked)
    path = prepare(tmp_path, {}, kitchen).path
    whole = contents(path)
    for times, name in enumerate(sorted(whole), start=2):
        harm(path / name)
        prepare(tmp_path, {}, kitchen)
        assert kitchen.times == times, f"nobody noticed that {name} is broken"
        assert contents(path) == whole


@pytest.mark.parametrize("broken", [False, True], ids=["nothing there", "a broken folder there"])
def test_runs_that_prepare_at_once_end_with_one_whole_folder(
    cooked: Cooked, tmp_path: Path, *, broken: bool
) -> None:
    if broken:
        shorten(prepare(tmp_path, {}, lambda: cooked).path / "train_item.npy")
    everyone_cooks = Barrier(4, timeout=60)

    def cook() -> Cooked:
        everyone_cooks.wait()  # nobody has finished when the last one begins
        return cooked

    def run(_: int) -> list[int]:
        items: list[int] = prepare(tmp_path, {}, cook).client(3).train.item.tolist()
        return items

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(run, range(4)))
    assert all(result == results[0] for result in results)
    left = list((tmp_path / "prepared").iterdir())
    assert len(left) == 1, "scratch folders were left behind"


def test_a_cache_that_cannot_be_written_is_named(cooked: Cooked, tmp_path: Path) -> None:
    (tmp_path / "prepared").write_text("a file where a folder should be")
    with pytest.raises(DataError, match=r"cannot write the prepared data below .*cache_dir="):
        prepare(tmp_path, {}, lambda: cooked)


def test_a_cook_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def burn() -> Cooked:
        raise DataError("the file has no ratings")

    with pytest.raises(DataError, match="no ratings"):
        prepare(tmp_path, {}, burn)
    assert list(tmp_path.iterdir()) == []


def test_other_users_train_where_a_federation_is_reassigned(cooked: Cooked, tmp_path: Path) -> None:
    """Item 13: membership inference calibrated by shadow federations."""
    data = cook_once(cooked, folder=tmp_path)
    train, validation, test = (data.part(part) for part in Part)
    histories = train.concat(validation).concat(test)
    inside = np.arange(data.num_users) % 3 == 0
    other = reassign_training_users(data, histories, inside, tmp_path / "other")
    for user in range(data.num_users):
        whole = histories.slice(user, user + 1)
        parts = [other.part(part).slice(user, user + 1) for part in Part]
        count = len(whole.item)
        lengths = [count, 0, 0] if inside[user] else [0, count - 1, 1]
        assert [len(part.item) for part in parts] == lengths
        assert np.concatenate([part.item for part in parts]).tolist() == whole.item.tolist()
        assert whole.rating is not None
        rated = [part.rating for part in parts if part.rating is not None]
        assert np.concatenate(rated).tolist() == whole.rating.tolist()
    assert data.part(Part.TRAIN).item.tolist() == train.item.tolist()  # the original stays
