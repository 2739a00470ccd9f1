"""Could a difference between two models on the same users be chance?"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_RESAMPLES = 9_999  # and the data themselves: p is a multiple of 1 / 10,000
_BLOCK = 4_000_000  # users drawn at a time: 32 MB of indices


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Test whether two models hit equally often.

    The exact test: of the users that one model hits and the other misses, each model has half,
    up to a fair coin.

    Args:
        one: bool (n,), which users a model hits.
        other: bool (n,), the same users in the same order.

    Returns:
        The two-sided p-value; 1 where the models never disagree.

    Source: McNemar 1947, in the exact form of Edwards 1948.
    """
    from scipy.stats import binomtest

    gained, lost = int(np.sum(one & ~other)), int(np.sum(other & ~one))
    if not gained + lost:
        return 1.0
    return float(binomtest(gained, gained + lost, 0.5).pvalue)


def paired_bootstrap(
    one: NDArray[np.float64], other: NDArray[np.float64], rng: np.random.Generator
) -> float:
    """Test whether two models have the same mean over users, of whom these are a sample.

    Users are drawn with replacement; p is how often the mean difference strays from its own
    value by as much as that value strays from zero.

    Args:
        one: float64 (n,), a metric of each user.
        other: float64 (n,), the same users in the same order.
        rng: draws the users.

    Returns:
        The two-sided p-value, at least 1 / 10,000.

    Source: Efron and Tibshirani 1993, sections 16.4 and 15.3 (p from the shifted distribution;
    one is added above and below, Davison and Hinkley 1997, eq. 4.11).
    """
    from scipy.stats import bootstrap

    difference = one - other
    drawn = bootstrap(
        (difference,), np.mean, n_resamples=_RESAMPLES, batch=max(1, _BLOCK // len(difference)),
        method="percentile", rng=rng,
    ).bootstrap_distribution  # fmt: skip
    observed = difference.mean()
    # Sums in another order: a difference of rounding is none.
    strays = np.abs(drawn - observed) >= np.abs(observed) * (1 - 1e-9)
    return float((1 + strays.sum()) / (1 + _RESAMPLES))


def majority(values: Sequence[float]) -> float:
    """Combine p-values that depend on each other: is what most tests show to be believed?

    To reject when k of n tests do has at most n / k times their chance of a false finding,
    however they hang together; k is here the least number above n / 2.

    Args:
        values: p-values of the same hypothesis, such as one per seed on the same users.

    Returns:
        A p-value: n / k times the k-th smallest, at most 1; that of the only test if there is
        one, missing if there is none.

    Source: Rüger 1978, as in Vovk and Wang 2020, "Combining p-values via averaging", section 1.
    """
    if not values:
        return float("nan")
    most = len(values) // 2 + 1
    return min(1.0, sorted(values)[most - 1] * len(values) / most)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values so that the chance of any false finding among them stays what one's was.

    Args:
        values: p-values of as many tests.

    Returns:
        Corrected p-values in the same order, each at least as large as before; a missing one
        stays missing and counts as no test.

    Source: Holm 1979.
    """
    corrected = np.asarray(values, float)
    tests = np.flatnonzero(~np.isnan(corrected))
    order = tests[np.argsort(corrected[tests], kind="stable")]
    scaled = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in corrected]
