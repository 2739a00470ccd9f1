"""Metrics of recommendation lists, by hand and against a naive loop."""

from itertools import combinations
from math import isnan, log2

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedrec_flower.evaluation.metrics import beyond_accuracy as module
from fedrec_flower.evaluation.metrics.beyond_accuracy import (
    beyond_accuracy,
    gini,
    intra_list_diversity,
)

# Item 3 has no genre and no training interaction.
GENRES = np.array([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=np.bool_)
POPULARITY = np.array([8, 4, 1, 0])
LISTS = np.array([[0, 1], [0, 3], [2, -1], [-1, -1]])


def test_beyond_accuracy_equals_values_by_hand() -> None:
    # Exposure is 2, 1, 1, 1; ascending, the weights 2j - n - 1 are -3, -1, 1, 3.
    assert beyond_accuracy(LISTS, POPULARITY, num_users=8, genres=GENRES) == pytest.approx(
        {
            "coverage@2": 4 / 4,
            "gini@2": (-3 * 1 - 1 * 1 + 1 * 1 + 3 * 2) / ((4 - 1) * 5),
            "novelty@2": ((log2(8 / 8) + log2(8 / 4)) / 2 + (0 + log2(8 / 1)) / 2 + log2(8)) / 3,
            "arp@2": ((8 + 4) / 2 + (8 + 0) / 2 + 1) / 3,
            # Items 0 and 1 share one of two genres; 0 and 3 share no genre.
            "ild@2": ((1 - 1 / 2) + (1 - 0)) / 2,
        }
    )


def test_beyond_accuracy_has_no_diversity_without_genres() -> None:
    values = beyond_accuracy(LISTS, POPULARITY, num_users=8, genres=None)
    assert list(values) == ["coverage@2", "gini@2", "novelty@2", "arp@2"]


def test_gini_is_0_for_equal_exposure_and_1_for_a_single_item() -> None:
    assert gini(np.array([[0, 1], [2, 3]]), num_items=4) == 0
    assert gini(np.array([[2], [2], [2]]), num_items=4) == 1


def test_intra_list_diversity_of_items_without_genres_is_0() -> None:
    genres = np.array([[0], [0], [1]], dtype=np.bool_)
    assert intra_list_diversity(np.array([[0, 1]]), genres) == 0
    assert intra_list_diversity(np.array([[0, 2]]), genres) == 1


@pytest.mark.parametrize("lists", [np.full((3, 2), -1), np.empty((0, 2), dtype=np.int64)])
def test_metrics_without_recommendations_are_nan_and_coverage_is_0(
    lists: NDArray[np.int64],
) -> None:
    values = beyond_accuracy(lists, POPULARITY, num_users=8, genres=GENRES)
    assert values.pop("coverage@2") == 0
    assert all(isnan(value) for value in values.values())


def naive_diversity(lists: list[list[int]], genres: NDArray[np.bool_]) -> float:
    sets = [frozenset(np.flatnonzero(row)) for row in genres]
    values = []
    for items in lists:
        distances = [
            1 - len(sets[a] & sets[b]) / len(sets[a] | sets[b]) if sets[a] | sets[b] else 0
            for a, b in combinations(items, 2)
        ]
        if distances:
            values.append(sum(distances) / len(distances))
    return sum(values) / len(values) if values else float("nan")


LIST_OF_ITEMS = st.lists(st.integers(0, 5), max_size=4, unique=True)


@given(
    lists=st.lists(LIST_OF_ITEMS, min_size=1, max_size=6),
    genres=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=6, max_size=6),
    popularity=st.lists(st.integers(0, 9), min_size=6, max_size=6),
)
def test_beyond_accuracy_equals_a_naive_loop(
    lists: list[list[int]], genres: list[list[bool]], popularity: list[int]
) -> None:
    padded = np.array([items + [-1] * (4 - len(items)) for items in lists])
    served = [items for items in lists if items]
    exposure = [sum(item in items for items in lists) for item in range(6)]
    gaps = sum(abs(a - b) for a, b in combinations(exposure, 2))
    expected = {
        "coverage@4": len({item for items in lists for item in items}) / 6,
        # The mean difference over all pairs, relative to the most there could be.
        "gini@4": gaps / ((6 - 1) * sum(exposure)) if served else np.nan,
        "novelty@4": np.mean(
            [np.mean([-log2(max(popularity[item], 1) / 9) for item in items]) for items in served]
        )
        if served
        else np.nan,
        "arp@4": np.mean([np.mean([popularity[item] for item in items]) for items in served])
        if served
        else np.nan,
        "ild@4": naive_diversity(lists, np.array(genres)),
    }
    found = beyond_accuracy(padded, np.array(popularity), num_users=9, genres=np.array(genres))
    assert found == pytest.approx(expected, nan_ok=True, abs=1e-6)


def test_intra_list_diversity_is_independent_of_batches(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lists = np.random.default_rng(0).integers(-1, 4, (10, 3))
    whole = intra_list_diversity(lists, GENRES)
    monkeypatch.setattr(module, "_LISTS_PER_BATCH", 3)
    assert intra_list_diversity(lists, GENRES) == pytest.approx(whole)
