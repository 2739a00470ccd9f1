"""Laws of the accountant: its values are upper bounds and agree with references."""

from math import exp, inf, isfinite, sqrt
from time import perf_counter

import numpy as np
import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.privacy.accounting import (
    LEAST_DELTA,
    append_release,
    default_delta,
    epsilon_of,
    noise_multiplier_for,
)
from fedrec_flower.privacy.requirements import check_budget, check_cost


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
    # On another grid; both add the same error bound of 0.01.
    assert epsilon_of(history, 1e-4) == pytest.approx(accountant.get_epsilon(1e-4), abs=5e-4)


@pytest.mark.parametrize(("noise_multiplier", "times"), [(0.5, 1), (1.0, 1), (4.0, 30)])
def test_without_sampling_it_is_a_tight_upper_bound(noise_multiplier: float, times: int) -> None:
    delta = 1e-4
    epsilon = epsilon_of(((noise_multiplier, 1.0, times),), delta)
    assert gaussian_delta(epsilon, noise_multiplier, times) <= delta
    assert gaussian_delta(epsilon - 1e-6, noise_multiplier, times) > delta


def test_no_release_costs_zero_and_no_noise_costs_infinity() -> None:
    assert epsilon_of((), 1e-3) == 0.0
    assert epsilon_of(((0.0, 0.1, 1),), 1e-3) == inf


def test_sampling_lowers_epsilon() -> None:
    assert epsilon_of(((1.0, 0.1, 10),), 1e-3) < epsilon_of(((1.0, 1.0, 10),), 1e-3) / 2


@pytest.mark.parametrize("target", [1.0, 8.0])
def test_a_noise_multiplier_uses_the_whole_budget_and_no_more(target: float) -> None:
    multiplier = noise_multiplier_for(target, 1e-3, 0.2, 10)
    assert target - 0.011 <= epsilon_of(((multiplier, 0.2, 10),), 1e-3) <= target


def test_an_infinite_budget_asks_for_no_noise() -> None:
    assert noise_multiplier_for(inf, 1e-3, 0.2, 10) == 0.0


def test_delta_is_below_one_in_the_number_of_users() -> None:
    assert default_delta(1000) == 1000**-1.1 < 1 / 1000


def test_equal_releases_become_one_stretch() -> None:
    history = append_release(append_release((), (1.0, 0.5, 1)), (1.0, 0.5, 1))
    assert history == ((1.0, 0.5, 2),)
    assert append_release(history, (2.0, 0.5, 1)) == ((1.0, 0.5, 2), (2.0, 0.5, 1))


def lowest_epsilon(noise: float, rate: float, times: int, delta: float, mesh: float) -> float:
    """A lower bound of epsilon, by convolution of privacy losses that are rounded down.

    The loss of x under (1 - rate) N(0, noise^2) + rate N(1, noise^2) against N(0, noise^2) grows
    with x; losses beyond the grid are left out, so delta is too small and epsilon with it.
    """
    from scipy.fft import irfft, rfft
    from scipy.stats import norm

    size = 1 << 18
    first = -(size // 16)  # cells below zero: no loss is below times * log(1 - rate)
    edges = (first + np.arange(size + 1)) * mesh
    inner = np.maximum(np.expm1(np.minimum(edges, 30)) / rate + 1, 0)
    with np.errstate(divide="ignore"):
        ratio = np.where(edges > 30, edges - np.log(rate), np.log(inner))
    x = noise**2 * ratio + 0.5
    cdf = (1 - rate) * norm.cdf(x / noise) + rate * norm.cdf((x - 1) / noise)
    one = np.roll(np.diff(cdf), first)  # the cell of zero in front
    whole = irfft(rfft(one) ** times, size)
    losses = np.arange(size) * mesh
    kept = np.maximum(whole, 0) * (losses < mesh * (size + 2 * first))

    def delta_of(epsilon: float) -> float:
        above = losses > epsilon
        return float(np.sum(kept[above] * -np.expm1(epsilon - losses[above])))

    low, high = 0.0, float(losses[-1])
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(middle) > delta else (low, middle)
    return low


@pytest.mark.parametrize(
    ("noise", "times", "epsilon"),
    [(0.05, 1, 264.8853), (0.05, 60, 12_508.7767), (1.0, 60, 54.6570)],
)
def test_f10_without_sampling_epsilon_is_that_of_balle_and_wang(
    noise: float, times: int, epsilon: float
) -> None:
    assert epsilon_of(((noise, 1.0, times),), 5e-4) == pytest.approx(epsilon, abs=1e-3)


@pytest.mark.parametrize(
    ("noise", "rate", "times", "delta", "mesh", "most"),
    [
        (1.0, 0.1, 60, 5e-4, 1e-4, 0.014),  # PRV
        (2.0, 0.1, 200, 1e-5, 1e-4, 0.014),
        (0.5, 0.02, 20, 1e-6, 5e-4, 0.014),
        (0.2, 0.1, 60, 5e-4, 2e-3, 0.014),
        (1.0, 0.1, 60, 1e-10, 2e-4, 0.02),
        (0.1, 0.1, 60, 5e-4, 1e-2, 120.0),  # Renyi, far above the range of PRV
        (1.0, 0.1, 60, 1e-11, 2e-4, 1.0),  # Renyi, below its deltas
    ],
)
def test_with_sampling_epsilon_lies_little_above_the_convolution_of_privacy_losses(
    noise: float, rate: float, times: int, delta: float, mesh: float, most: float
) -> None:
    """The PRV bound exceeds the convolution by the stated amount."""
    lowest = lowest_epsilon(noise, rate, times, delta, mesh)
    epsilon = epsilon_of(((noise, rate, times),), delta)
    assert lowest <= epsilon <= lowest + times * mesh + most


@pytest.mark.parametrize(
    ("noise", "bound"),
    # Upper bounds by the RDP accountant of Opacus, whose orders begin at 1.1.
    [(0.1, 1_879.8), (0.2, 184.9)],
)
def test_f10_epsilon_is_at_most_the_bound_of_opacus(noise: float, bound: float) -> None:
    assert epsilon_of(((noise, 0.1, 60),), 5e-4) <= bound


@pytest.mark.parametrize("rate", [1e-8, 1e-3, 0.5, 0.999, 1.0])
@pytest.mark.parametrize("noise", [1e-9, 0.01, 0.05, 1.0, 1e4, 1e9])
def test_f10_every_epsilon_is_finite_in_bounded_time(noise: float, rate: float) -> None:
    began = perf_counter()
    for times in (1, 10**9):
        for delta in (LEAST_DELTA, 1e-15, 0.5):
            assert isfinite(epsilon_of(((noise, rate, times),), delta))
    assert perf_counter() - began < 20


def test_f10_epsilon_grows_with_releases_and_falls_with_noise_delta_and_sampling() -> None:
    grid = [
        [epsilon_of(((noise, rate, times),), delta) for times in (1, 50, 400)]
        for delta in (1e-12, 1e-4)
        for rate in (1.0, 0.3, 0.01)
        for noise in (0.3, 3.0)
    ]
    cube = np.array(grid).reshape(2, 3, 2, 3)
    for axis in range(3):
        assert (np.diff(cube, axis=axis) <= 1e-3).all(), axis
    assert (np.diff(cube, axis=3) >= -1e-3).all()


@pytest.mark.parametrize(
    ("target", "delta", "rate"),
    [(0.001, 1e-5, 1.0), (0.001, 1e-5, 0.1), (1e-6, 1e-15, 0.5), (1e4, 1e-3, 0.1), (8.0, 1e-20, 1)],
)
def test_f10_any_budget_is_kept(target: float, delta: float, rate: float) -> None:
    noise = noise_multiplier_for(target, delta, rate, 60)
    assert isfinite(noise)
    assert 0 < epsilon_of(((noise, rate, 60),), delta) <= target


def test_f10_a_figure_for_each_of_many_rounds_costs_seconds() -> None:
    epsilon_of(((2.0, 0.1, 300),), 1e-5)
    began = perf_counter()
    for count in range(290, 300):
        epsilon_of(((2.0, 0.1, count),), 1e-5)
    assert perf_counter() - began < 3


def test_values_outside_the_accountants_range_are_rejected() -> None:
    with pytest.raises(ConfigError, match=r"privacy.delta=1e-200 is too small"):
        check_budget(1.0, None, 1e-200)
    with pytest.raises(ConfigError, match=r"privacy.noise_multiplier=1e-200 .* raise it"):
        check_cost(1e-200, 1e-5, 60)
    check_cost(0.0, 1e-5, 60)  # without noise there is no guarantee
