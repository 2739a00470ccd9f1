"""Laws of the fairness metrics: worst decile and activity gap."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.evaluation.metrics.fairness import activity_gap, worst_decile

QUALITIES = st.lists(st.floats(0, 1), min_size=2, max_size=60).map(np.array)


def test_worst_decile_is_the_mean_of_the_worst_tenth_of_the_clients() -> None:
    quality = np.arange(20.0)
    client = np.arange(20)
    assert worst_decile(quality, client) == (0 + 1) / 2


def test_worst_decile_averages_the_users_of_a_client() -> None:
    assert worst_decile(np.array([0.0, 1.0, 0.4]), np.array([0, 0, 1])) == pytest.approx(0.4)


@given(QUALITIES)
def test_fairness_of_equal_quality_has_no_gap(quality: np.ndarray) -> None:
    same = np.full_like(quality, quality[0])
    clients = np.arange(len(quality))
    assert worst_decile(same, clients) == pytest.approx(quality[0])
    assert activity_gap(same, clients) == pytest.approx(0)


@given(QUALITIES)
def test_worst_decile_is_at_most_the_mean(quality: np.ndarray) -> None:
    assert worst_decile(quality, np.arange(len(quality))) <= quality.mean() + 1e-12


def test_activity_gap_compares_the_most_and_the_least_active_quarter() -> None:
    quality, activity = np.array([0.1, 0.9, 0.5, 0.3]), np.array([5, 80, 20, 10])
    assert activity_gap(quality, activity) == pytest.approx(0.9 - 0.1)


def test_fairness_ignores_users_without_held_out_items() -> None:
    quality, who = np.array([np.nan, 0.2, 0.6]), np.array([0, 1, 2])
    assert worst_decile(quality, who) == 0.2
    assert activity_gap(quality, np.array([9, 1, 2])) == pytest.approx(0.4)
    assert np.isnan(worst_decile(np.array([np.nan]), np.array([0])))
    assert np.isnan(activity_gap(np.array([0.3]), np.array([1])))
