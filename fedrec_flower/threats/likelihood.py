"""Calibration of a membership score by shadow models: the likelihood-ratio attack.

Some users have a common taste, and every model explains them well; other users are explained well
only by a model that was trained on them. An uncalibrated score does not distinguish the two cases.
Shadow models give the distribution of each user's score with and without that user in the training
data.

Source: Carlini et al. 2022, "Membership inference attacks from first principles", sections IV to
VI: the online and the offline attack, with variances pooled over users as recommended there for
few shadow models.
"""

import numpy as np

from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray, Float64Array

_MIN_VARIANCE = 1e-12  # for scores that do not vary


def halves(number: int, num_users: int) -> BoolArray:
    """The users that train a shadow federation: a random half.

    Shadow federation 1 trains on the users that shadow federation 0 does not train on, 3 on those
    that 2 does not train on, and so on. Of an even number of them each user is in exactly half.

    Args:
        number: index of the shadow federation, from zero.
        num_users: number of users.

    Returns:
        bool (num_users,), true for users that train.
    """
    rng = generator(0, "shadow-half", number // 2)
    first = rng.permutation(num_users) < num_users // 2
    return first if number % 2 == 0 else ~first


def calibrated(
    score: Float64Array, shadow_scores: Float64Array, trained: BoolArray
) -> dict[str, Float64Array]:
    """Membership scores that are calibrated by each user's scores under shadow models.

    Args:
        score: float64 (num_users,), scores by the attacked model; roughly normal.
        shadow_scores: float64 (num_shadows, num_users), scores by the shadow models.
        trained: bool (num_shadows, num_users), true if the shadow model was trained on the user.

    Returns:
        By name, float64 (num_users,), higher for members; NaN for a user without a shadow model
        of the required kind:

        - online: the logarithm of the likelihood ratio of two normal distributions, that of the
          user's scores by models trained with the user and that by models trained without. The
          attacked model's scores are shifted by a constant so that their mean is between the two,
          because the attacked model was trained on another number of users.
        - offline: the score minus its mean by models trained without the user.
        - centered: the score minus the middle of its two means. It equals the online attack if
          training on a user raises every user's score by the same amount. It is the most robust
          for few shadow models and noise, because it has no quotient or product of noisy means.
    """
    mean_with, variance_with = _moments(shadow_scores, trained)
    mean_without, variance_without = _moments(shadow_scores, ~trained)
    middle = (mean_with + mean_without) / 2
    shifted = score - np.nanmean(score - middle)
    return {
        "online": _log_normal(shifted, mean_with, variance_with)
        - _log_normal(shifted, mean_without, variance_without),
        "offline": score - mean_without,
        "centered": score - middle,
    }


def _moments(scores: Float64Array, chosen: BoolArray) -> tuple[Float64Array, float]:
    """Mean of the chosen scores of each user, NaN for none, and their variance over all users."""
    count = chosen.sum(axis=0)
    total = np.where(chosen, scores, 0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    squares = float((np.where(chosen, scores - mean, 0) ** 2).sum())
    freedom = int(np.maximum(count - 1, 0).sum())
    return mean, max(squares / max(freedom, 1), _MIN_VARIANCE)


def _log_normal(score: Float64Array, mean: Float64Array, variance: float) -> Float64Array:
    """Logarithm of the normal density, without its constant term."""
    density: Float64Array = -((score - mean) ** 2) / (2 * variance) - np.log(variance) / 2
    return density
