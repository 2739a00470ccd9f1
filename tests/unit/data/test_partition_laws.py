"""Laws of every partition: each user has one client, each client has a user."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.features import Genres
from fedrec_flower.data.interactions import Interactions, Part, Partition, Split
from fedrec_flower.data.partitions.base import Partitioner
from fedrec_flower.data.partitions.cross_device import Single, User
from fedrec_flower.data.partitions.cross_silo import (
    SiloAttribute,
    SiloDirichlet,
    SiloQuantity,
    SiloRandom,
    fill_empty,
)

GENRES = ["Action", "Comedy", "Drama"]


def consumers(genre_of_user: list[int]) -> Interactions:
    """Each user has one interaction, with an item of its genre; -1 is an item without genre."""
    num_users = len(genre_of_user)
    genres = [*GENRES, None]
    return Interactions(
        user=np.arange(num_users, dtype=np.int32),
        item=(np.array(genre_of_user, dtype=np.int32) % len(genres)).astype(np.int32),
        rating=None,
        timestamp=None,
        user_ids=np.array([f"user-{user:05}" for user in range(num_users)]),
        item_ids=np.arange(len(genres)),
        users=pd.DataFrame({"gender": ["F", "M"] * (num_users // 2) + ["F"] * (num_users % 2)}),
        items=pd.DataFrame({"genres": genres}),
    )


def all_train(data: Interactions) -> Split:
    return Split(np.full(len(data), Part.TRAIN, dtype=np.int8))


def assign(partitioner: Partitioner, data: Interactions, seed: int = 0) -> Partition:
    return partitioner.assign(data, all_train(data), seed)


def sizes(partition: Partition) -> list[int]:
    counts = np.bincount(partition.client_of_user, minlength=partition.num_clients)
    return [int(count) for count in counts]


def silo_partitioners(num_clients: int) -> list[Partitioner]:
    return [
        SiloRandom(num_clients),
        SiloQuantity(num_clients, exponent=1.5),
        SiloDirichlet(num_clients, alpha=0.1),
    ]


@given(genres=st.lists(st.integers(-1, 2), min_size=1, max_size=40), seed=st.integers(0, 9))
def test_every_user_has_a_client_and_every_client_a_user(genres: list[int], seed: int) -> None:
    data = consumers(genres)
    for num_clients in {1, (len(genres) + 1) // 2, len(genres)}:
        for partitioner in silo_partitioners(num_clients):
            partition = assign(partitioner, data, seed)
            assert len(partition.client_of_user) == len(genres)
            assert len(sizes(partition)) == num_clients
            assert min(sizes(partition)) >= 1
            assert len(set(partition.client_names)) == num_clients


@pytest.mark.parametrize("partitioner", silo_partitioners(10))
def test_the_seed_alone_decides_who_goes_where(partitioner: Partitioner) -> None:
    data = consumers([user % 3 for user in range(100)])
    first, again, other = (
        assign(partitioner, data, seed).client_of_user.tolist() for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_by_default_a_client_is_a_user_and_bears_its_id() -> None:
    partition = assign(User(), consumers([0, 1, 2]))
    assert partition.client_of_user.tolist() == [0, 1, 2]
    assert partition.client_names.tolist() == ["user-00000", "user-00001", "user-00002"]


def test_a_single_client_holds_everyone() -> None:
    partition = assign(Single(), consumers([0, 1, 2]))
    assert partition.client_of_user.tolist() == [0, 0, 0]
    assert partition.num_clients == 1


def test_random_silos_are_equal_to_within_one_user() -> None:
    assert sorted(sizes(assign(SiloRandom(4), consumers([0] * 10)))) == [2, 2, 3, 3]


def test_attribute_silos_hold_the_users_of_one_value() -> None:
    partition = assign(SiloAttribute("gender"), consumers([0] * 5))
    assert partition.client_names.tolist() == ["F", "M"]
    assert partition.client_of_user.tolist() == [0, 1, 0, 1, 0]


def test_numbers_sort_as_numbers_and_a_missing_value_is_unknown() -> None:
    data = consumers([0] * 4)
    data.users["age"] = pd.array([100, 18, None, 9], dtype="Int64")
    partition = assign(SiloAttribute("age"), data)
    assert partition.client_names.tolist() == ["9", "18", "100", "unknown"]
    assert partition.client_of_user.tolist() == [2, 1, 3, 0]


def test_quantity_silos_follow_the_power_law() -> None:
    # One user each, and the other 110 in the ratio 1 : 1/2 : 1/3, which is 60 : 30 : 20.
    partition = assign(SiloQuantity(3, exponent=1), consumers([0] * 113))
    assert sizes(partition) == [1 + 60, 1 + 30, 1 + 20]


def test_what_is_left_of_a_quantity_goes_to_the_largest_fractions() -> None:
    # One user each, and of the other 10 the quotas are 60 / 11, 30 / 11, 20 / 11: 5.5, 2.7, 1.8.
    partition = assign(SiloQuantity(3, exponent=1), consumers([0] * 13))
    assert sizes(partition) == [1 + 5, 1 + 3, 1 + 2]


def test_quantity_silos_without_skew_are_equal() -> None:
    assert sizes(assign(SiloQuantity(4, exponent=0), consumers([0] * 10))) == [3, 3, 2, 2]


def skew(alpha: float) -> float:
    """Mean over silos of the share of the silo's most frequent genre; 1/3 is no skew at all."""
    genre = np.arange(3000) % 3
    partition = assign(SiloDirichlet(5, alpha), consumers(genre.tolist()))
    table = np.zeros((5, 3))
    np.add.at(table, (partition.client_of_user, genre), 1)
    return float((table.max(axis=1) / table.sum(axis=1)).mean())


def test_dirichlet_silos_share_a_taste_when_alpha_is_small_and_none_when_it_is_large() -> None:
    assert skew(0.01) > 0.9
    assert skew(1000) == pytest.approx(1 / 3, abs=0.05)


@pytest.mark.parametrize(
    ("items", "expected"),
    [([1, 2, 2], 2), ([1, 0], 0), ([1], 0), ([2, 0], 0), ([3], -1), ([], -1)],
)
def test_an_item_counts_once_for_each_genre_and_a_tie_goes_to_the_first(
    items: list[int], expected: int
) -> None:
    of_item = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]], dtype=np.bool_)
    genres = Genres(np.array(GENRES, dtype=object), of_item)
    group, item = np.zeros(len(items), dtype=np.int32), np.array(items, dtype=np.int32)
    assert genres.top(group, item, num_groups=1).tolist() == [expected]


def test_taste_is_read_from_train_alone() -> None:
    train = consumers([0, 1, 2] * 100)
    # All users also have two held-out interactions with Drama, which would outvote train.
    whole = replace(
        train,
        user=np.tile(train.user, 3),
        item=np.concatenate([train.item, np.full(600, 2, dtype=np.int32)]),
    )
    part = np.repeat(np.array(list(Part), dtype=np.int8), 300)
    partitioner = SiloDirichlet(5, alpha=0.1)
    expected = assign(partitioner, train).client_of_user
    found = partitioner.assign(whole, Split(part), seed=0).client_of_user
    assert found.tolist() == expected.tolist()


def test_what_movielens_lists_for_no_genre_is_no_genre() -> None:
    data = consumers([0, 0])
    data.items["genres"] = ["Drama|Action", "(no genres listed)", "", None]
    genres = Genres.read(data)
    assert genres.names.tolist() == ["Action", "Drama"]
    assert genres.of_item.tolist() == [[True, True], [False, False], [False, False], [False, False]]


@given(
    clients=st.lists(st.integers(0, 5), min_size=6, max_size=30).map(np.array),
    seed=st.integers(0, 9),
)
def test_filling_moves_one_user_per_empty_client_and_levels_the_largest(
    clients: NDArray[np.int64], seed: int
) -> None:
    filled = fill_empty(clients, 6, np.random.default_rng(seed))
    expected = np.bincount(clients, minlength=6)
    for empty in np.flatnonzero(expected == 0):
        expected[expected.argmax()] -= 1
        expected[empty] += 1
    assert sorted(np.bincount(filled, minlength=6)) == sorted(expected)
    assert (filled != clients).sum() == 6 - len(np.unique(clients))


@pytest.mark.parametrize("num_clients", [0, -1, 4])
def test_an_impossible_number_of_clients_names_the_possible(num_clients: int) -> None:
    for partitioner in silo_partitioners(num_clients):
        with pytest.raises(ConfigError, match=f"num_clients={num_clients} .* choose from 1 to 3"):
            assign(partitioner, consumers([0, 1, 2]))


def test_an_unknown_attribute_lists_the_known() -> None:
    with pytest.raises(ConfigError, match=r"attribute=job is no attribute .* have \(gender\)"):
        assign(SiloAttribute("job"), consumers([0, 1]))


@pytest.mark.parametrize("alpha", [0, -1, float("nan"), float("inf")])
def test_an_impossible_alpha_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match=f"alpha={alpha} is impossible"):
        SiloDirichlet(2, alpha)


@pytest.mark.parametrize("exponent", [-1, float("nan"), float("inf")])
def test_an_impossible_exponent_is_refused(exponent: float) -> None:
    with pytest.raises(ConfigError, match=f"exponent={exponent} is impossible"):
        SiloQuantity(2, exponent)


@pytest.mark.parametrize("items", [pd.DataFrame(), pd.DataFrame({"genres": [None] * 4})])
def test_taste_without_genres_is_refused(items: pd.DataFrame) -> None:
    data = Interactions(
        user=np.arange(4, dtype=np.int32),
        item=np.arange(4, dtype=np.int32),
        rating=None,
        timestamp=None,
        user_ids=np.arange(4),
        item_ids=np.arange(4),
        items=items,
    )
    with pytest.raises(DataError, match="have no genres"):
        assign(SiloDirichlet(2, 0.5), data)
