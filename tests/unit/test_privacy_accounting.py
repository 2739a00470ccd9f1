"""Laws of accounting: the figures are the accountant's own, and agree with what is known."""

from math import exp, inf, sqrt

import pytest

from fedrec_flower.privacy import epsilon_of, noise_multiplier_for
from fedrec_flower.privacy.accounting import default_delta, joined


def gaussian_delta(epsilon: float, noise_multiplier: float, times: int) -> float:
    """Delta of several Gaussian releases, exactly. Source: Balle and Wang 2018, theorem 8."""
    from scipy.stats import norm

    mu = sqrt(times) / noise_multiplier
    left, right = norm.cdf(mu / 2 - epsilon / mu), norm.cdf(-mu / 2 - epsilon / mu)
    return float(left - exp(epsilon) * right)


def test_the_golden_case() -> None:
    assert 7.0 < epsilon_of(((1.0, 0.1, 200),), 1e-3) < 7.2


def test_it_is_the_accountants_own_value() -> None:
    from opacus.accountants import (  # type: ignore[import-untyped]  # it ships no types
        PRVAccountant,
    )

    accountant, history = PRVAccountant(), ((1.1, 0.2, 5), (0.9, 0.2, 1))
    for noise, rate, count in history:
        for _ in range(count):
            accountant.step(noise_multiplier=noise, sample_rate=rate)
    assert epsilon_of(history, 1e-4) == accountant.get_epsilon(1e-4)


@pytest.mark.parametrize(("noise_multiplier", "times"), [(0.5, 1), (1.0, 1), (4.0, 30)])
def test_without_sampling_it_is_a_tight_upper_bound(noise_multiplier: float, times: int) -> None:
    delta = 1e-4
    epsilon = epsilon_of(((noise_multiplier, 1.0, times),), delta)
    assert gaussian_delta(epsilon, noise_multiplier, times) <= delta
    assert gaussian_delta(epsilon - 0.03, noise_multiplier, times) > delta


def test_nothing_released_costs_nothing_and_no_noise_costs_all() -> None:
    assert epsilon_of((), 1e-3) == 0.0
    assert epsilon_of(((0.0, 0.1, 1),), 1e-3) == inf


def test_sampling_is_rewarded() -> None:
    assert epsilon_of(((1.0, 0.1, 10),), 1e-3) < epsilon_of(((1.0, 1.0, 10),), 1e-3) / 2


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_a_noise_multiplier_keeps_its_budget_and_wastes_none(target: float) -> None:
    multiplier = noise_multiplier_for(target, 1e-3, 0.2, 10)
    assert target - 0.011 <= epsilon_of(((multiplier, 0.2, 10),), 1e-3) <= target


def test_an_infinite_budget_asks_for_no_noise() -> None:
    assert noise_multiplier_for(inf, 1e-3, 0.2, 10) == 0.0


def test_delta_is_below_one_in_the_number_of_users() -> None:
    assert default_delta(1000) == 1000**-1.1 < 1 / 1000


def test_equal_releases_become_one_stretch() -> None:
    history = joined(joined((), (1.0, 0.5, 1)), (1.0, 0.5, 1))
    assert history == ((1.0, 0.5, 2),)
    assert joined(history, (2.0, 0.5, 1)) == ((1.0, 0.5, 2), (2.0, 0.5, 1))
