"""Laws of the tie-breaker: it depends on the original ids alone."""

import numpy as np
import pytest

from fedrec_flower.data.interactions import Ids, Interactions
from fedrec_flower.data.tie_breaking import hash_ids, splitmix64, tie_hash


def pairs(users: list[int], items: list[int], user_ids: Ids, item_ids: Ids) -> Interactions:
    return Interactions(
        user=np.array(users, dtype=np.int32),
        item=np.array(items, dtype=np.int32),
        rating=None,
        timestamp=None,
        user_ids=user_ids,
        item_ids=item_ids,
    )


def test_splitmix64_equals_the_reference_implementation() -> None:
    # The first outputs of the reference implementation for the seed 1234567.
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + step * golden) % 2**64 for step in range(3)], dtype=np.uint64)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert splitmix64(states).tolist() == expected


def test_splitmix64_has_no_collision() -> None:
    assert len(np.unique(splitmix64(np.arange(100_000, dtype=np.uint64)))) == 100_000


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8])
def test_an_integer_id_hashes_the_same_at_any_width(kind: type[np.integer]) -> None:
    assert hash_ids(np.array([3, 5], dtype=kind)).tolist() == hash_ids(np.array([3, 5])).tolist()


@pytest.mark.parametrize("kind", ["U3", "U40", object])
def test_a_string_id_hashes_the_same_at_any_width(kind: str | type) -> None:
    ids = ["", "a", "ab", "ba", "é1"]
    hashed = hash_ids(np.array(ids, dtype=kind)).tolist()
    assert hashed == hash_ids(np.array(ids)).tolist()
    assert len(set(hashed)) == len(ids)


def test_no_ids_have_no_hashes() -> None:
    assert hash_ids(np.array([], dtype="U1")).tolist() == []


def test_the_hash_depends_on_the_original_ids_and_not_on_the_codes() -> None:
    few = pairs([0], [1], np.array(["ann"]), np.array([10, 20]))
    more = pairs([1], [0], np.array(["aaron", "ann"]), np.array([20, 30]))
    assert tie_hash(few, np.arange(1)).tolist() == tie_hash(more, np.arange(1)).tolist()


def test_swapping_user_and_item_changes_the_hash() -> None:
    ids = np.array([3, 5])
    three_five, five_three, three_three = tie_hash(
        pairs([0, 1, 0], [1, 0, 0], ids, ids), np.arange(3)
    )
    assert len({int(three_five), int(five_three), int(three_three)}) == 3


def reference_splitmix64(value: int) -> int:
    """The reference in Python integers, after the C code of Steele, Lea and Flood."""
    mixed = (value + 0x9E3779B97F4A7C15) % 2**64
    mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EB % 2**64
    return mixed ^ (mixed >> 31)


def test_the_hash_of_a_pair_never_changes() -> None:
    # Published split digests depend on this hash: a change here changes every split.
    film = 0
    for character in "film":
        film = reference_splitmix64(film ^ ord(character))
    user = reference_splitmix64(reference_splitmix64(196))
    expected = reference_splitmix64(user ^ film)
    data = pairs([0], [0], np.array([196]), np.array(["film"]))
    assert tie_hash(data, np.arange(1)).tolist() == [expected]
