"""Calibration of a membership score by shadow models: the likelihood-ratio attack.

Some users have a common taste, and any model explains them well; others are explained well only
by a model that was trained on them. A plain score confuses the two. Shadow models show for each
user how high its score is with and without it in the training data, and so what its score under
the attacked model means.

Source: Carlini et al. 2022, "Membership inference attacks from first principles", sections IV to
VI: the online and the offline attack, variances pooled over users as advised there for few
shadow models.
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import generator

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_LEAST = 1e-12  # variance of scores that do not vary


def halves(number: int, num_users: int) -> Flags:
    """Which users train a shadow federation: a random half, every draw used twice.

    Shadow federation 1 trains on the users that shadow federation 0 leaves out, 3 on those of 2,
    and so on. Each user is therefore in exactly half of an even number of them.

    Args:
        number: the shadow federation, counted from zero.
        num_users: number of users.

    Returns:
        bool (num_users,).
    """
    rng = generator(0, "shadow-half", number // 2)
    first = rng.permutation(num_users) < num_users // 2
    return first if number % 2 == 0 else ~first


def calibrated(score: Floats, shadow_scores: Floats, trained: Flags) -> dict[str, Floats]:
    """Scores of membership that account for how familiar each user is to any model.

    Args:
        score: float64 (num_users,), scores by the attacked model; roughly normal.
        shadow_scores: float64 (num_shadows, num_users), by the shadow models.
        trained: bool (num_shadows, num_users), whom each shadow model was trained on.

    Returns:
        By name, float64 (num_users,), higher for members; NaN for a user without a shadow model
        of the kind that is needed:

        - online: the logarithm of the likelihood ratio of two normal distributions, that of the
          user's scores by models trained with it and that by models trained without it. The
          attacked model's scores are shifted by a constant so that their mean lies between
          the two: the attacked model was trained on another number of users.
        - offline: the score minus its mean by models trained without the user.
        - centered: the score minus the middle between its two means. It is the online attack if
          training on a user raises the score of each user alike, and stands few shadow models and
          noise best: it has no quotient or product of noisy means.
    """
    with_user, spread_with = _moments(shadow_scores, trained)
    without, spread_without = _moments(shadow_scores, ~trained)
    centered = score - np.nanmean(score - (with_user + without) / 2)
    return {
        "online": _log_normal(centered, with_user, spread_with)
        - _log_normal(centered, without, spread_without),
        "offline": score - without,
        "centered": score - (with_user + without) / 2,
    }


def _moments(scores: Floats, chosen: Flags) -> tuple[Floats, float]:
    """Mean of the chosen scores of each user, NaN for none, and their variance over all users."""
    count = chosen.sum(axis=0)
    total = np.where(chosen, scores, 0).sum(axis=0)
    mean = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    squares = float((np.where(chosen, scores - mean, 0) ** 2).sum())
    freedom = int(np.maximum(count - 1, 0).sum())
    return mean, max(squares / max(freedom, 1), _LEAST)


def _log_normal(score: Floats, mean: Floats, variance: float) -> Floats:
    """Logarithm of the normal density, up to the same constant for all."""
    density: Floats = -((score - mean) ** 2) / (2 * variance) - np.log(variance) / 2
    return density
