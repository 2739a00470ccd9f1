"""Accounting of Gaussian releases: the epsilon of a history, and the noise for a budget.

Every value is an upper bound of the true epsilon, for adding or removing one protected unit:

- Without sampling (rate 1) it is exact. Source: Balle and Wang 2018, "Improving the Gaussian
  mechanism for differential privacy", theorem 8; releases compose by adding their mu squared
  (Dong, Roth and Su 2022, "Gaussian differential privacy", corollary 3.3).
- With Poisson sampling it is the smallest of three bounds. The first is the PRV accountant of
  Opacus (Gopi, Lee and Wutschitz 2021, "Numerical composition of differential privacy"), which
  adds its error bound of 0.01: it exceeds the true value by 0.010 to 0.013. It is used if its grid
  fits into memory and delta is far above the rounding errors of float64. The second is Renyi
  differential privacy (Mironov, Talwar and Zhang 2019, "Renyi differential privacy of the sampled
  Gaussian mechanism"), typically 5 to 20 % above the true value. The third is the exact value at
  rate 1: sampling never costs more than full participation.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from math import exp, hypot, inf, isfinite, isinf, log, pi, sqrt
from typing import Any

import numpy as np

from fedrec_flower.core.types import Float64Array

# A sequence of equal releases: noise multiplier, sampling rate, number of releases.
Stretch = tuple[float, float, int]
History = tuple[Stretch, ...]

LEAST_DELTA = 1e-100
"""The smallest delta for which float64 can compute a guarantee."""

_EPSILON_ERROR = 0.01  # of the PRV accountant; it is added to the reported epsilon
_RELATIVE_DELTA_ERROR = 1e-3  # of the PRV accountant
_PRV_MIN_DELTA = 1e-10  # at 1e-12 the rounding errors reach 0.05 in both directions
_PRV_MAX_POINTS = 1 << 21  # of the grid: about 200 MB while it is in use
_PRV_MAX_LOSS = 700.0  # privacy loss at the end of the grid; exp(709) is the largest float64
_RENYI_ORDERS = (
    *(1.01, 1.02, 1.05),
    *(1 + tenth / 10 for tenth in range(1, 10)),
    *(2.0, 2.5, 3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 10.0, 12.0, 14.0, 16.0, 20.0, 24.0, 28.0),
    *(32.0, 40.0, 48.0, 56.0, 64.0, 80.0, 96.0, 128.0, 192.0, 256.0, 384.0, 512.0, 768.0, 1024.0),
)
_TAIL_STDS = 13.0  # standard deviations; exp(-84) of a Gaussian's mass is beyond them
_RENYI_MAX_POINTS = 1 << 17
_ROUNDING_ERROR = 1e-13  # relative error of float64, added to every bound
_SEARCH_TOLERANCE = 1e-4  # relative width at which the search for a noise multiplier stops


@lru_cache(maxsize=4096)
def epsilon_of(history: History, delta: float) -> float:
    """The epsilon of several subsampled Gaussian releases together; 0 for none.

    Args:
        history: sequences of equal releases; a rate below 1 means Poisson sampling, a rate of 1
            means that every client takes part, which is an upper bound for any sampling.
        delta: delta of the guarantee, from `LEAST_DELTA` to 1.

    Returns:
        An upper bound, for adding or removing one protected unit; infinity without noise, or
        if epsilon exceeds the range of float64.
    """
    if not history:
        return 0.0
    if min(noise for noise, _, _ in history) <= 0:
        return inf
    exact = _gaussian_epsilon(hypot(*(sqrt(n) / noise for noise, _, n in history)), delta)
    if all(rate >= 1 for _, rate, _ in history) or exact in (0.0, inf):
        return exact
    with _quiet():
        return min(exact, _renyi_epsilon(history, delta), _prv_epsilon(history, delta))


@lru_cache(maxsize=256)
def noise_multiplier_for(target_epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier that keeps a budget, to 0.01 or 1 % of epsilon.

    Args:
        target_epsilon: the budget; infinity means no noise.
        delta: see `epsilon_of`.
        rate: sampling rate of every release.
        steps: number of releases.
    """
    if isinf(target_epsilon) or not steps:
        return 0.0
    enough = sqrt(steps) / _mu_for(target_epsilon, delta)
    if rate >= 1:
        return enough

    def excess(noise: float) -> float:
        """Logarithm of epsilon / target_epsilon."""
        return log(max(epsilon_of(((noise, rate, steps),), delta), 1e-300) / target_epsilon)

    tolerance = -log(1 - min(0.01, 0.01 / target_epsilon))
    high = enough
    at_high = excess(high)
    low = enough / 2
    at_low = excess(low)
    while at_low <= 0:
        high = low
        at_high = at_low
        low /= 2
        at_low = excess(low)
    # Regula falsi in logarithms, the Illinois variant: the weight of an end that stays is halved.
    weight_low = at_low
    weight_high = at_high
    while at_high < -tolerance and high > low * (1 + _SEARCH_TOLERANCE):
        share = weight_low / (weight_low - weight_high) if isfinite(weight_low) else 0.5
        middle = low * (high / low) ** min(max(share, 0.02), 0.98)
        value = excess(middle)
        if value > 0:
            low = middle
            weight_low = value
            weight_high /= 2
        else:
            high = middle
            at_high = value
            weight_high = value
            weight_low /= 2
    return high


def accountant(rate: float) -> str:
    """The name of the method by which `epsilon_of` accounts for releases of a sampling rate."""
    if rate >= 1:
        return "exact, Balle and Wang 2018"
    return "PRV, of Opacus; Renyi outside of its range"


def default_delta(num_units: int) -> float:
    """A delta below one in the number of protected units: num_units ** -1.1.

    Source: McMahan et al. 2018, "Learning differentially private recurrent language models".
    """
    return float(max(num_units, 2) ** -1.1)


def append_release(history: History, step: Stretch) -> History:
    """The history with more releases appended; equal neighbours are merged."""
    if history and history[-1][:2] == step[:2]:
        noise, rate, count = history[-1]
        return (*history[:-1], (noise, rate, count + step[2]))
    return (*history, step)


# --- without sampling, exactly ----------------------------------------------------------------


def _gaussian_delta(epsilon: float, mu: float) -> float:
    """Phi(mu/2 - epsilon/mu) - exp(epsilon) Phi(-mu/2 - epsilon/mu), rounded up.

    The scaled complementary error function avoids computing exp(epsilon).
    """
    from scipy.special import erfcx, ndtr

    low = epsilon / mu - mu / 2
    high = epsilon / mu + mu / 2
    tail = exp(-low * low / 2) / 2
    minus = erfcx(high / sqrt(2))
    if low <= 0:
        return float(ndtr(-low) - tail * minus + _ROUNDING_ERROR)
    plus = erfcx(low / sqrt(2))
    return float(tail * (plus - minus + _ROUNDING_ERROR * plus))


def _gaussian_epsilon(mu: float, delta: float) -> float:
    """The smallest epsilon whose exact delta is at most `delta`, by bisection."""
    low = 0.0
    high = mu * mu / 2 + mu * sqrt(2 * log(1 / delta))
    if isinf(high):
        return inf
    if _gaussian_delta(0.0, mu) <= delta:
        return 0.0
    while low < (middle := (low + high) / 2) < high:
        if _gaussian_delta(middle, mu) <= delta:
            high = middle
        else:
            low = middle
    return high


def _mu_for(epsilon: float, delta: float) -> float:
    """The largest mu whose cost is at most epsilon, lowered by a relative 1e-9."""
    low = high = 1.0
    while _gaussian_delta(epsilon, low) > delta:
        low /= 2
    while _gaussian_delta(epsilon, high) <= delta:
        high *= 2
    while low < (middle := (low + high) / 2) < high:
        if _gaussian_delta(epsilon, middle) <= delta:
            low = middle
        else:
            high = middle
    return low * (1 - 1e-9)


# --- with Poisson sampling ---------------------------------------------------------------------


def _renyi_epsilon(history: History, delta: float) -> float:
    orders = np.array(_RENYI_ORDERS)
    divergence = np.sum([n * _renyi_step(noise, rate) for noise, rate, n in history], axis=0)
    # Balle et al. 2020, "Hypothesis testing interpretations and Renyi differential privacy",
    # theorem 21.
    epsilons = divergence - (log(delta) + np.log(orders)) / (orders - 1) + np.log1p(-1 / orders)
    return max(0.0, float(np.min(epsilons)))


@lru_cache(maxsize=64)
def _renyi_step(noise: float, rate: float) -> Float64Array:
    """Renyi divergence of one release at each of the orders; infinity where it is not computed.

    It is the integral of N(0, noise^2) times ((1 - rate) + rate exp((2x - 1) / (2 noise^2)))^order,
    computed by the trapezoidal rule, whose error decreases exponentially for such a function
    (Trefethen and Weideman 2014): the mesh is a fraction of the distance to its nearest
    singularity.
    """
    divergence = np.full(len(_RENYI_ORDERS), inf)
    square = noise * noise
    mesh = min(noise, square) / 8
    for place, order in enumerate(_RENYI_ORDERS):
        first = -_TAIL_STDS * noise
        last = order + _TAIL_STDS * noise
        if not mesh or not (last - first) / mesh <= _RENYI_MAX_POINTS:
            continue
        x = np.arange(first, last + mesh, mesh)
        ratio = np.logaddexp(np.log1p(-rate), log(rate) + (2 * x - 1) / (2 * square))
        terms = order * ratio - x * x / (2 * square)
        largest = float(terms.max())
        total = largest + log(float(np.exp(terms - largest).sum()) * mesh / noise)
        allowance = _ROUNDING_ERROR * (1 + abs(largest))
        divergence[place] = (total - log(2 * pi) / 2 + allowance) / (order - 1)
    bounds: Float64Array = np.maximum(divergence, 0.0)
    return bounds


def _prv_epsilon(history: History, delta: float) -> float:
    """The epsilon of the PRV accountant; infinity outside of its range."""
    from opacus.accountants.analysis.prv import (  # type: ignore[import-untyped]  # it ships no types
        compose_heterogeneous,
    )

    # A grid is made for the next power of two of each count, so a run needs only a few grids.
    planned = tuple((noise, rate, 1 << (n - 1).bit_length()) for noise, rate, n in history)
    try:
        grids = _prv_grids(planned, delta)
        if grids is None:
            return inf
        whole = compose_heterogeneous(list(grids), [n for _, _, n in history])
        delta_error = _RELATIVE_DELTA_ERROR * delta
        epsilon = float(whole.compute_epsilon(delta, delta_error, _EPSILON_ERROR)[2])
    except (ValueError, RuntimeError, ArithmeticError, IndexError):
        return inf
    return epsilon if epsilon > 0 else inf


@lru_cache(maxsize=2)
def _prv_grids(history: History, delta: float) -> tuple[Any, ...] | None:
    """Privacy losses of one release of each entry of the history, on one common grid.

    The size of the grid follows Gopi et al. 2021, remark 5.6, as in Opacus; the number of its
    points is chosen for fast Fourier transforms. None if the grid would be too large.
    """
    from opacus.accountants.analysis.prv import (
        Domain,
        PoissonSubsampledGaussianPRV,
        TruncatedPrivacyRandomVariable,
        discretize,
    )
    from scipy.fft import next_fast_len

    if delta < _PRV_MIN_DELTA:
        return None
    error = _RELATIVE_DELTA_ERROR * delta
    releases = sum(n for _, _, n in history)
    single = [_renyi_epsilon(((s, r, 1),), error / (8 * releases)) for s, r, _ in history]
    reach = max(_renyi_epsilon(history, error / 4), *single, _EPSILON_ERROR) + 3
    mesh = _EPSILON_ERROR / sqrt(releases * log(12 / error) / 2)
    if reach > _PRV_MAX_LOSS or 2 * reach / mesh > _PRV_MAX_POINTS:
        return None
    half = next_fast_len(int(reach / mesh) + 2, real=True) - 1
    domain = Domain(-half * mesh, (half + 1) * mesh, 2 * half + 2)
    variables = [PoissonSubsampledGaussianPRV(rate, noise) for noise, rate, _ in history]
    return tuple(
        discretize(TruncatedPrivacyRandomVariable(each, domain.t_min, domain.t_max), domain)
        for each in variables
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress numerical warnings of the accountant.

    It takes logarithms of zero at a sampling rate of 1, and overflows if a bound is infinite.
    """
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield
