from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import generator
from fedrec_flower.data.interactions import Interactions
from fedrec_flower.data.sources.synthetic import Categoricals, Synthetic, activity, distinct_items

SMALL = Synthetic("synthetic", 600, 300, 18_000, 10, 6, 0.1, 0.8, 0.8, 0, None)


@pytest.fixture(scope="module")
def data() -> Interactions:
    return SMALL.load()


def test_sizes_are_as_asked(data: Interactions) -> None:
    assert (data.num_users, data.num_items, len(data)) == (600, 300, 18_000)
    sizes = np.bincount(data.user)
    assert sizes.min() >= 10
    assert sizes.max() <= 300 // 2
    assert sizes.max() > 2 * sizes.mean()  # activity is skewed


def test_no_user_meets_an_item_twice(data: Interactions) -> None:
    pairs = data.user.astype(np.int64) * data.num_items + data.item
    assert (np.diff(pairs) > 0).all()
    assert 0 <= data.item.min() <= data.item.max() < 300


def test_ratings_are_whole_stars_and_all_are_given(data: Interactions) -> None:
    assert data.rating is not None
    stars, counts = np.unique(data.rating, return_counts=True)
    assert stars.tolist() == [1, 2, 3, 4, 5]
    assert counts.min() > 0.01 * len(data)


def test_users_have_a_group_and_items_a_genre(data: Interactions) -> None:
    assert set(data.users["group"]) == {f"genre-{factor}" for factor in range(6)}
    genres = [text.split("|") for text in data.items["genres"]]
    assert set().union(*genres) == set(data.users["group"])
    assert all(of_one == sorted(of_one) for of_one in genres)


def test_users_meet_the_genre_of_their_group_most(data: Interactions) -> None:
    group = data.users["group"].to_numpy()[data.user]
    genres = data.items["genres"].to_numpy()[data.item]
    own = np.mean([one in of_one.split("|") for one, of_one in zip(group, genres, strict=True)])
    by_chance = 1.5 / 6  # no item has more than a few of the six genres
    assert own > 2 * by_chance


def test_the_seed_alone_decides(data: Interactions) -> None:
    again, other = SMALL.load(), replace(SMALL, seed=1).load()
    for field in ("user", "item", "rating", "timestamp"):
        np.testing.assert_array_equal(getattr(data, field), getattr(again, field))
    assert (data.item != other.item).any()


def test_knobs_turned_to_zero_make_all_equal() -> None:
    flat = replace(SMALL, popularity_exponent=0.0, activity_sigma=0.0, factor_concentration=1e4)
    even = flat.load()
    assert np.bincount(even.user).tolist() == [18_000 // 600] * 600
    popularity = np.bincount(even.item, minlength=300)
    mean = 18_000 / 300
    assert popularity.max() < mean + 5 * np.sqrt(mean)
    skewed = np.bincount(replace(flat, popularity_exponent=1.0).load().item)
    assert skewed.max() > 5 * mean


def neighbours(train: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores (num_users, num_items): the summed cosine of an item to those a user met."""
    cosine = train.T @ train / np.outer(*[np.sqrt(train.sum(axis=0)) + 1e-9] * 2)
    np.fill_diagonal(cosine, 0)
    scores: NDArray[np.float64] = train @ cosine
    return scores


def test_there_is_more_to_learn_than_popularity(data: Interactions) -> None:
    met = np.zeros((data.num_users, data.num_items))
    met[data.user, data.item] = 1
    starts = np.searchsorted(data.user, np.arange(data.num_users))
    sizes = np.bincount(data.user)
    held_out = data.item[starts + generator(0, "test").integers(0, sizes)]
    everyone = np.arange(data.num_users)
    train = met.copy()
    train[everyone, held_out] = 0

    def hits(scores: NDArray[np.float64]) -> float:
        """Share of users whose held-out item is among the ten best they have not met."""
        scores = np.where(train > 0, -np.inf, scores)
        above = scores > scores[everyone, held_out][:, np.newaxis]
        return float((above.sum(axis=1) < 10).mean())

    popular = hits(np.broadcast_to(train.sum(axis=0), train.shape))
    assert popular > 2 * 10 / 300
    assert hits(neighbours(train)) > 1.5 * popular


@given(
    sizes=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    seed=st.integers(0, 2**32),
    skew=st.floats(0, 8),
)
def test_everybody_gets_as_many_distinct_items_as_asked(
    sizes: list[int], seed: int, skew: float
) -> None:
    rng = generator(seed, "test")
    tastes = Categoricals.of(np.exp(-skew * np.arange(7.0)) * np.ones((3, 1)))
    mixtures = Categoricals.of(rng.dirichlet(np.ones(3), len(sizes)))
    user, item = distinct_items(rng, np.array(sizes), mixtures, tastes)
    assert np.bincount(user, minlength=len(sizes)).tolist() == sizes
    pairs = user * 7 + item
    assert (np.diff(pairs) > 0).all()
    assert ((item >= 0) & (item < 7)).all()


def test_single_draws_follow_the_mixture() -> None:
    tastes = Categoricals.of(np.array([[1.0, 2.0, 1.0], [0.0, 0.0, 5.0]]))
    mixtures = Categoricals.of(np.tile([3.0, 1.0], (40_000, 1)))
    sizes = np.ones(40_000, np.int64)
    _, item = distinct_items(generator(0, "test"), sizes, mixtures, tastes)
    expected = 3 / 4 * np.array([1 / 4, 2 / 4, 1 / 4]) + 1 / 4 * np.array([0, 0, 1])
    spread = np.sqrt(expected * (1 - expected) / 40_000)
    assert (np.abs(np.bincount(item) / 40_000 - expected) < 4 * spread).all()


@given(
    num_users=st.integers(1, 50),
    least=st.integers(1, 5),
    room=st.integers(0, 20),
    fullness=st.floats(0, 1),
    sigma=st.floats(0, 3),
)
def test_activity_keeps_its_bounds_and_its_total(
    num_users: int, least: int, room: int, fullness: float, sigma: float
) -> None:
    total = num_users * least + int(fullness * num_users * room)
    sizes = activity(generator(0, "test"), num_users, total, least, least + room, sigma)
    assert sizes.sum() == total
    assert least <= sizes.min()
    assert sizes.max() <= least + room


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_users", 0),
        ("num_items", 1),
        ("num_factors", 0),
        ("num_interactions", 600 * 10 - 1),
        ("num_interactions", 600 * 150 + 1),
        ("min_per_user", 0),
        ("factor_concentration", 0.0),
        ("popularity_exponent", -0.1),
        ("activity_sigma", float("nan")),
        ("seed", -1),
    ],
)
def test_impossible_values_are_named(field: str, value: Any) -> None:
    changed: dict[str, Any] = {field: value}
    with pytest.raises(ConfigError, match=field):
        replace(SMALL, **changed)
