"""Rating errors by hand."""

from math import isnan, sqrt

import numpy as np
import pytest

from fedrec_flower.metrics.rating import mae, rating_errors, rmse


def test_errors_are_of_the_clipped_predictions() -> None:
    prediction = np.array([7.0, -2.0, 3.5, 4.0], dtype=np.float32)
    rating = np.array([4.0, 3.0, 3.0, 4.0], dtype=np.float32)
    errors = [5 - 4, 1 - 3, 3.5 - 3, 4 - 4]
    expected = (sum(error**2 for error in errors), sum(map(abs, errors)), 4)
    assert rating_errors(prediction, rating, low=1, high=5) == expected


def test_means_of_sums_are_the_means_of_all_errors() -> None:
    rng = np.random.default_rng(0)
    prediction, rating = rng.uniform(1, 5, 100), rng.integers(1, 6, 100).astype(np.float32)
    halves = [
        rating_errors(prediction[half], rating[half], low=1, high=5)
        for half in (slice(30), slice(30, None))
    ]
    squared, absolute, count = (sum(column) for column in zip(*halves, strict=True))
    assert rmse(squared, int(count)) == pytest.approx(sqrt(np.mean((prediction - rating) ** 2)))
    assert mae(absolute, int(count)) == pytest.approx(np.mean(np.abs(prediction - rating)))


def test_no_ratings_have_no_error() -> None:
    empty = np.array([])
    assert rating_errors(empty, empty, low=1, high=5) == (0, 0, 0)
    assert isnan(rmse(0, 0))
    assert isnan(mae(0, 0))


@pytest.mark.parametrize("prediction", [np.nan, np.inf, -np.inf])
def test_clipping_hides_no_divergence(prediction: float) -> None:
    with pytest.raises(ValueError, match="non-finite predictions"):
        rating_errors(np.array([prediction]), np.array([3.0]), low=1, high=5)
