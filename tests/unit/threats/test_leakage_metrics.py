"""Laws of judging a guess: areas by hand, and popularity alone is worth one half."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedrec_flower.threats.leakage_metrics import Matching, auc, auc_error

SCORES = st.lists(st.integers(-5, 5), min_size=1, max_size=12)


def values(scores: list[int]) -> NDArray[np.float64]:
    return np.array(scores, np.float64)


def ordered(popularity: list[int]) -> Matching:
    return Matching(np.array(popularity), np.random.default_rng(0))


@given(ours=SCORES, others=SCORES)
def test_an_area_is_the_share_of_pairs_won_and_half_of_those_tied(
    ours: list[int], others: list[int]
) -> None:
    won = sum((a > b) + (a == b) / 2 for a in ours for b in others)
    assert auc(values(ours), values(others)) == pytest.approx(won / len(ours) / len(others))


@given(ours=SCORES, others=SCORES)
def test_areas_of_both_sides_sum_to_one(ours: list[int], others: list[int]) -> None:
    one, other = values(ours), values(others)
    assert auc(one, other) + auc(other, one) == pytest.approx(1.0)


def test_an_area_by_hand() -> None:
    # 3 beats 1 and 2 and ties with 3; 2 beats 1 and ties with 2.
    assert auc(values([3, 2]), values([1, 2, 3])) == pytest.approx((2.5 + 1.5) / 6)


def test_auc_error_is_the_standard_deviation_of_the_auc() -> None:
    rng = np.random.default_rng(5)
    drawn = [(rng.normal(0.5, 1.0, 40), rng.normal(0.0, 1.0, 60)) for _ in range(400)]
    spread = np.std([auc(*pair) for pair in drawn])
    assert np.mean([auc_error(*pair) for pair in drawn]) == pytest.approx(spread, rel=0.1)


def test_items_are_compared_with_equally_many_more_and_less_popular_ones() -> None:
    popularity = [10, 20, 30, 40, 50, 60]
    pairs = ordered(popularity).pairs(np.array([2]), np.array([0, 1, 3, 4, 5]), 2)
    assert sorted(pairs.other.tolist()) == [0, 1, 3, 4]
    near = ordered(popularity).pairs(np.array([4]), np.array([0, 1, 3, 5]), 2)
    assert sorted(near.other.tolist()) == [3, 5]  # one above is all there is, so one below


def test_the_most_popular_item_is_not_compared() -> None:
    pairs = ordered([1, 2, 3, 9]).pairs(np.array([1, 3]), np.array([0, 2]), 5)
    assert set(pairs.own.tolist()) == {1}
    assert pairs.weight.sum() == pytest.approx(1.0)
    assert len(ordered([1, 9]).pairs(np.array([1]), np.array([0]), 5).own) == 0


@given(seed=st.integers(0, 1000), each_side=st.integers(1, 6))
def test_popularity_has_an_auc_of_one_half(seed: int, each_side: int) -> None:
    rng = np.random.default_rng(seed)
    popularity = rng.permutation(200)  # all different
    own = np.sort(rng.choice(200, 30, replace=False, p=popularity / popularity.sum()))
    others = np.setdiff1d(np.arange(200), own)
    pairs = Matching(popularity, rng).pairs(own, others, each_side)
    assert pairs.auc(popularity.astype(np.float64)) == pytest.approx(0.5)
    assert pairs.auc(np.log1p(popularity)) == pytest.approx(0.5)


def test_popularity_with_ties_has_a_mean_auc_of_one_half() -> None:
    """A population whose only taste is popularity."""
    rng = np.random.default_rng(2)
    rate = np.geomspace(0.5, 0.02, 150)
    liked = rng.random((300, 150)) < rate
    popularity = liked.sum(axis=0)
    matching = Matching(popularity, rng)
    score, everywhere, matched = popularity.astype(np.float64), [], []
    for row in liked:
        own, others = np.flatnonzero(row), np.flatnonzero(~row)
        everywhere.append(auc(score[own], score[others]))
        matched.append(matching.pairs(own, others, 5).auc(score))
    assert np.mean(everywhere) > 0.7
    assert np.mean(matched) == pytest.approx(0.5, abs=0.02)


def test_true_items_have_an_auc_of_one_and_noise_of_one_half() -> None:
    rng = np.random.default_rng(3)
    popularity = rng.integers(1, 40, 300)
    own = rng.choice(300, 60, replace=False)
    others = np.setdiff1d(np.arange(300), own)
    pairs = Matching(popularity, rng).pairs(own, others, 5)
    assert pairs.auc(np.isin(np.arange(300), own).astype(np.float64)) == pytest.approx(1.0)
    guesses = [pairs.auc(rng.normal(size=300)) for _ in range(200)]
    assert np.mean(guesses) == pytest.approx(0.5, abs=0.01)
