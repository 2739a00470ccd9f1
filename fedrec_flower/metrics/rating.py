"""Rating metrics from sums, so that a server can add up clients without seeing a rating."""

from math import nan, sqrt

import numpy as np
from numpy.typing import NDArray


def rating_errors(
    prediction: NDArray[np.floating], rating: NDArray[np.floating], low: float, high: float
) -> tuple[float, float, int]:
    """Sum the errors of predicted ratings, clipped to the rating range here and nowhere else.

    Args:
        prediction: float (n,), raw rating units, not clipped.
        rating: float (n,), raw rating units.
        low: lowest possible rating.
        high: highest possible rating.

    Returns:
        The sum of squared errors, the sum of absolute errors, and n.

    Raises:
        ValueError: if a prediction is NaN or infinite, which clipping would hide.
    """
    if not np.isfinite(prediction).all():
        raise ValueError("cannot judge non-finite predictions: the model has diverged")
    # float64: sums over millions of float32 errors lose low bits.
    error = np.clip(prediction.astype(np.float64), low, high) - rating
    return float(np.square(error).sum()), float(np.abs(error).sum()), len(error)


def rmse(sum_squared: float, count: int) -> float:
    """Root of the mean squared error, raw rating units; NaN for no ratings."""
    return sqrt(sum_squared / count) if count else nan


def mae(sum_absolute: float, count: int) -> float:
    """Mean absolute error, raw rating units; NaN for no ratings."""
    return sum_absolute / count if count else nan
