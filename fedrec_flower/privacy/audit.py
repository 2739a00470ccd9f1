"""Lower bounds of epsilon, from trials in which an attacker distinguishes neighbouring data sets.

Under a guarantee of (epsilon, delta), every test makes errors: its rate of false positives a and
its rate of false negatives b satisfy a exp(epsilon) + b >= 1 - delta, and the same with a and b
exchanged. Trials bound a and b from above, and so epsilon from below. A bound above the claimed
epsilon refutes the claim; a bound below it does not prove the claim.

Sources: Jagielski, Ullman and Oprea 2020, "Auditing differentially private machine learning",
section 4; Nasr et al. 2021, "Adversary instantiation: lower bounds for differentially private
machine learning", section III; Clopper and Pearson 1934 for the bounds of the rates.
"""

from dataclasses import dataclass
from math import log

import numpy as np

from fedrec_flower.core.types import Float64Array, IndexArray

_NUM_THRESHOLDS = 512  # candidates for each score
_MIN_TRIALS = 4  # of each data set


@dataclass(frozen=True, slots=True)
class LowerBound:
    """A lower bound of epsilon from trials.

    Attributes:
        epsilon: the bound, at the chosen confidence; 0 if the trials give no bound.
        score: the column of the scores that the test uses.
        false_positives: upper bound of their rate.
        false_negatives: upper bound of their rate.
        num_trials: number of trials that the rates were counted on, of both data sets together.
    """

    epsilon: float
    score: int
    false_positives: float
    false_negatives: float
    num_trials: int


def epsilon_lower_bound(
    one: Float64Array, other: Float64Array, delta: float, confidence: float = 0.95
) -> LowerBound:
    """Bound epsilon from below by the best threshold on the best score.

    Score, threshold and direction are chosen on the first half of the trials; errors are counted
    on the second half, so that the choice does not lower the confidence.

    Args:
        one: float64 (num_trials, num_scores), the attacker's scores for one data set, a row per
            independent trial. NaN is treated as minus infinity.
        other: the same for the neighbouring data set.
        delta: delta of the claimed guarantee.
        confidence: probability that the true epsilon is at least the bound.

    Raises:
        ValueError: if the scores differ in number, or a data set has fewer than four trials.
    """
    if len({one.shape[1:], other.shape[1:]}) > 1 or min(len(one), len(other)) < _MIN_TRIALS:
        raise ValueError(f"scores of {one.shape} and {other.shape}: at least {_MIN_TRIALS} trials")
    one, other = (np.where(np.isnan(scores), -np.inf, scores) for scores in (one, other))
    first_one, second_one = np.split(one, [len(one) // 2])
    first_other, second_other = np.split(other, [len(other) // 2])
    error_rate = 1 - confidence
    best = (-np.inf, 0, 0.0, 1.0)  # epsilon, column, threshold, sign
    for column in range(one.shape[1]):
        values = np.unique(np.concatenate([first_one[:, column], first_other[:, column]]))
        places = np.linspace(0, len(values) - 1, min(len(values), _NUM_THRESHOLDS)).astype(np.int64)
        for sign in (1.0, -1.0):
            thresholds = np.unique(sign * values[places])
            errors = _errors(first_one[:, column], first_other[:, column], sign, thresholds)
            epsilons = _epsilons(*errors, delta, error_rate)
            place = int(np.argmax(epsilons))
            if epsilons[place] > best[0]:
                best = (float(epsilons[place]), column, float(thresholds[place]), sign)
    _, column, threshold, sign = best
    chosen = np.array([threshold])
    positives, negatives = _errors(second_one[:, column], second_other[:, column], sign, chosen)
    epsilon = max(0.0, float(_epsilons(positives, negatives, delta, error_rate)[0]))
    return LowerBound(
        epsilon=epsilon,
        score=column,
        false_positives=float(_upper_bound(*positives, error_rate / 2)[0]),
        false_negatives=float(_upper_bound(*negatives, error_rate / 2)[0]),
        num_trials=len(second_one) + len(second_other),
    )


Counts = tuple[IndexArray, int]  # number of errors at each threshold, number of trials


def _errors(
    one: Float64Array, other: Float64Array, sign: float, thresholds: Float64Array
) -> tuple[Counts, Counts]:
    """False positives and false negatives of the test "other" if sign * score > threshold."""
    scores_one = np.sort(sign * one)
    scores_other = np.sort(sign * other)
    false_positives = len(one) - np.searchsorted(scores_one, thresholds, side="right")
    false_negatives = np.searchsorted(scores_other, thresholds, side="right")
    return (false_positives, len(one)), (false_negatives, len(other))


def _epsilons(
    positives: Counts, negatives: Counts, delta: float, error_rate: float
) -> Float64Array:
    """The lower bound of epsilon from the errors at each threshold."""
    a = _upper_bound(*positives, error_rate / 2)
    b = _upper_bound(*negatives, error_rate / 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        both = [np.log(np.maximum(1 - delta - y, 0) / x) for x, y in ((a, b), (b, a))]
    return np.asarray(np.fmax(*both), np.float64)


def _upper_bound(count: IndexArray, total: int, error_rate: float) -> Float64Array:
    """The upper bound of a rate by Clopper and Pearson, false with probability `error_rate`."""
    from scipy.stats import beta

    bound = beta.ppf(1 - error_rate, count + 1, np.maximum(total - count, 1e-300))
    return np.asarray(np.where(count < total, bound, 1.0), np.float64)


def most_provable(num_trials: int, confidence: float = 0.95) -> float:
    """The largest lower bound that a number of trials can give.

    Args:
        num_trials: trials of each data set; errors are counted on half of them.
        confidence: see `epsilon_lower_bound`.
    """
    rate = 1 - ((1 - confidence) / 2) ** (1 / (num_trials - num_trials // 2))
    return log((1 - rate) / rate)
