"""Lower bounds of epsilon, from trials in which an attacker tells two neighbouring data sets apart.

A mechanism with a guarantee of (epsilon, delta) forces every test to err: its rate of false
positives a and of false negatives b satisfy a exp(epsilon) + b >= 1 - delta, and the same with a
and b exchanged. Trials bound a and b from above, and so epsilon from below. A bound above the
claimed epsilon refutes the claim; one below it proves nothing.

Sources: Jagielski, Ullman and Oprea 2020, "Auditing differentially private machine learning",
section 4; Nasr et al. 2021, "Adversary instantiation: lower bounds for differentially private
machine learning", section III; Clopper and Pearson 1934 for the bounds of the rates.
"""

from dataclasses import dataclass
from math import log

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_THRESHOLDS = 512  # candidates a score
_FEWEST = 4  # trials of each data set


@dataclass(frozen=True, slots=True)
class LowerBound:
    """What trials say of epsilon.

    Attributes:
        epsilon: the true one is no smaller, at the confidence asked for; 0 if nothing is known.
        score: the column that the test looks at.
        false_positives: upper bound of their rate.
        false_negatives: upper bound of their rate.
        num_trials: trials that the rates were counted on, of both data sets together.
    """

    epsilon: float
    score: int
    false_positives: float
    false_negatives: float
    num_trials: int


def epsilon_lower_bound(
    one: Floats, other: Floats, delta: float, confidence: float = 0.95
) -> LowerBound:
    """Bound epsilon from below by the best threshold on the best score.

    Score, threshold and direction are chosen on the first half of the trials; errors are counted
    on the second half, so that the choice costs no confidence.

    Args:
        one: float64 (num_trials, num_scores), what the attacker sees of one data set, a row per
            independent trial. What is not a number is a value of its own.
        other: the same of the neighbouring data set.
        delta: of the claim.
        confidence: that the true epsilon is no smaller.

    Raises:
        ValueError: if the scores differ in number, or there are fewer than four trials of each.
    """
    if len({one.shape[1:], other.shape[1:]}) > 1 or min(len(one), len(other)) < _FEWEST:
        raise ValueError(f"scores of {one.shape} and {other.shape}: at least {_FEWEST} trials")
    one, other = (np.where(np.isnan(scores), -np.inf, scores) for scores in (one, other))
    halves = [(scores[: len(scores) // 2], scores[len(scores) // 2 :]) for scores in (one, other)]
    (first_one, rest_one), (first_other, rest_other) = halves
    miss, best = 1 - confidence, (-np.inf, 0, 0.0, 1.0)
    for column in range(one.shape[1]):
        values = np.unique(np.concatenate([first_one[:, column], first_other[:, column]]))
        places = np.linspace(0, len(values) - 1, min(len(values), _THRESHOLDS)).astype(np.int64)
        for sign in (1.0, -1.0):
            thresholds = np.unique(sign * values[places])
            errors = _errors(first_one[:, column], first_other[:, column], sign, thresholds)
            found = _epsilons(*errors, delta, miss)
            place = int(np.argmax(found))
            if found[place] > best[0]:
                best = (float(found[place]), column, float(thresholds[place]), sign)
    _, column, threshold, sign = best
    at = np.array([threshold])
    false, missed = _errors(rest_one[:, column], rest_other[:, column], sign, at)
    a, b = (float(_at_most(count, total, miss / 2)[0]) for count, total in (false, missed))
    epsilon = max(0.0, float(_epsilons(false, missed, delta, miss)[0]))
    return LowerBound(epsilon, column, a, b, len(rest_one) + len(rest_other))


Counts = tuple[NDArray[np.int64], int]  # how many of how many, for each threshold


def _errors(one: Floats, other: Floats, sign: float, thresholds: Floats) -> tuple[Counts, Counts]:
    """False positives and negatives of the test that says "other" above a threshold."""
    ours, theirs = np.sort(sign * one), np.sort(sign * other)
    false = len(ours) - np.searchsorted(ours, thresholds, side="right")
    missed = np.searchsorted(theirs, thresholds, side="right")
    return (false, len(ours)), (missed, len(theirs))


def _epsilons(false: Counts, missed: Counts, delta: float, miss: float) -> Floats:
    """Lower bounds, not above infinity, from the errors of each threshold."""
    a, b = (_at_most(count, total, miss / 2) for count, total in (false, missed))
    with np.errstate(divide="ignore", invalid="ignore"):
        both = [np.log(np.maximum(1 - delta - y, 0) / x) for x, y in ((a, b), (b, a))]
    return np.asarray(np.fmax(*both), np.float64)


def _at_most(count: NDArray[np.int64], total: int, miss: float) -> Floats:
    """The upper bound of a rate by Clopper and Pearson, wrong with probability `miss`."""
    from scipy.stats import beta

    bound = beta.ppf(1 - miss, count + 1, np.maximum(total - count, 1e-300))
    return np.asarray(np.where(count < total, bound, 1.0), np.float64)


def most_provable(num_trials: int, confidence: float = 0.95) -> float:
    """The largest lower bound that so many trials of each data set can give.

    Args:
        num_trials: of each data set; half of them count.
        confidence: see `epsilon_lower_bound`.
    """
    rate = 1 - ((1 - confidence) / 2) ** (1 / (num_trials - num_trials // 2))
    return log((1 - rate) / rate)
