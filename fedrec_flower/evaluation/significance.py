"""Significance tests of the difference between two models on the same users."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_NUM_RESAMPLES = 9_999  # with the data themselves, p is a multiple of 1 / 10,000
_USERS_PER_BATCH = 4_000_000  # drawn users in one batch: 32 MB of indices


def mcnemar(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Test whether two models have the same hit rate.

    Under the null hypothesis of the exact test, each model has a hit for half of the users for
    whom exactly one model has a hit (a fair coin).

    Args:
        one: bool (n,), whether the first model has a hit for each user.
        other: bool (n,), the same for the second model, users in the same order.

    Returns:
        The two-sided p-value; 1 if the models never differ.

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
    """Test whether two models have the same mean over the population of users.

    Users are drawn with replacement. p is the share of resamples whose mean difference deviates
    from the observed one by at least as much as the observed one deviates from zero.

    Args:
        one: float64 (n,), metric of each user under the first model.
        other: float64 (n,), the same for the second model, users in the same order.
        rng: random generator for the resamples.

    Returns:
        The two-sided p-value, at least 1 / 10,000.

    Source: Efron and Tibshirani 1993, sections 16.4 and 15.3 (p from the shifted distribution;
    one is added above and below, Davison and Hinkley 1997, eq. 4.11).
    """
    from scipy.stats import bootstrap

    difference = one - other
    drawn = bootstrap(
        (difference,), np.mean, n_resamples=_NUM_RESAMPLES,
        batch=max(1, _USERS_PER_BATCH // len(difference)),
        method="percentile", rng=rng,
    ).bootstrap_distribution  # fmt: skip
    observed = difference.mean()
    # Tolerance: resampled means are summed in another order.
    deviates = np.abs(drawn - observed) >= np.abs(observed) * (1 - 1e-9)
    return float((1 + deviates.sum()) / (1 + _NUM_RESAMPLES))


def majority(values: Sequence[float]) -> float:
    """Combine dependent p-values by the majority of the tests.

    Rejecting if k of n tests reject has at most n / k times the false positive rate of one test,
    for any dependence between the tests. Here k is the smallest number above n / 2.

    Args:
        values: p-values of the same hypothesis, such as one per seed on the same users.

    Returns:
        A p-value: n / k times the k-th smallest p-value, at most 1; NaN without tests.

    Source: Rüger 1978, as in Vovk and Wang 2020, "Combining p-values via averaging", section 1.
    """
    if not values:
        return float("nan")
    majority_count = len(values) // 2 + 1
    p_value = sorted(values)[majority_count - 1]
    return min(1.0, p_value * len(values) / majority_count)


def holm(values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests; the family-wise error rate is controlled.

    Args:
        values: p-values, one per test.

    Returns:
        Corrected p-values in the same order, each at least as large as before; NaN stays NaN and
        does not count as a test.

    Source: Holm 1979.
    """
    corrected = np.asarray(values, float)
    tests = np.flatnonzero(~np.isnan(corrected))
    order = tests[np.argsort(corrected[tests], kind="stable")]
    scaled = corrected[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return [float(value) for value in corrected]
