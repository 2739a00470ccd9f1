"""Laws of the processing of noisy statistics on the server."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.models.closed_form import Noise
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.itemknn import ItemKNN
from fedrec_flower.models.ops.cooccurrence import debiased, insignificant, symmetric, without_noise
from fedrec_flower.models.popularity import Popularity

NUM_ITEMS, NUM_FACTORS, STD = 60, 3, 5.0


def true_gram() -> NDArray[np.float64]:
    """A few strong tastes and a spread of its own for each item."""
    rng = np.random.default_rng(1)
    tastes = rng.random((NUM_ITEMS, NUM_FACTORS)) * [40.0, 20.0, 20.0]
    return tastes @ tastes.T + np.diag(rng.uniform(50.0, 100.0, NUM_ITEMS))


def noisy_gram(seed: int) -> NDArray[np.float64]:
    lower = np.tri(NUM_ITEMS, dtype=np.bool_)
    noise = STD * np.random.default_rng(seed).normal(size=int(lower.sum()))
    return symmetric(true_gram()[lower] + noise, NUM_ITEMS)


def test_denoised_statistics_are_closer_to_the_true_ones_than_the_released() -> None:
    truth = true_gram()
    for seed in range(5):
        released = noisy_gram(seed)
        cleaned = without_noise(released, STD)
        initial, after = (np.linalg.norm(found - truth) for found in (released, cleaned))
        assert after < 0.7 * initial


def test_denoised_statistics_are_symmetric_and_positive() -> None:
    cleaned = without_noise(noisy_gram(1), STD)
    assert_allclose(cleaned, cleaned.T)
    assert np.linalg.eigvalsh(cleaned).min() > -1e-9
    assert np.linalg.eigvalsh(noisy_gram(1)).min() < np.linalg.eigvalsh(cleaned).min()


def test_denoising_removes_pure_noise() -> None:
    rng = np.random.default_rng(3)
    lower = np.tri(200, dtype=np.bool_)
    cleaned = without_noise(symmetric(rng.normal(size=int(lower.sum())), 200), 1.0)
    np.fill_diagonal(cleaned, 0.0)
    assert np.abs(cleaned).max() < 1e-9 + 0.05  # an eigenvalue may lie a little beyond the edge


def test_items_and_pairs_below_the_noise_level_are_removed() -> None:
    users = np.array([0.0, 1.0, 3.0, 3.1, -4.0])
    assert insignificant(users, 1.0).tolist() == [True, True, True, False, True]
    assert insignificant(users, 0.0).tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("std", [0.0, STD, 1e6])
def test_models_are_finite_for_any_noise(std: float) -> None:
    lower = np.tri(NUM_ITEMS, dtype=np.bool_)
    noise = np.random.default_rng(2).normal(size=int(lower.sum()))
    sums = {"cooccurrences": true_gram()[lower] + std * noise}
    for model in (EASE(1, NUM_ITEMS, 10.0), ItemKNN(1, NUM_ITEMS, 5, 0.0)):
        for value in model.solve(sums, {}, Noise(std)).values():
            assert np.isfinite(value).all()


def test_ease_with_denoising_is_closer_to_noiseless_ease() -> None:
    lower, ease = np.tri(NUM_ITEMS, dtype=np.bool_), EASE(1, NUM_ITEMS, 100.0)
    truth = ease.solve({"cooccurrences": true_gram()[lower]}, {})["item_weights"]
    released = {"cooccurrences": noisy_gram(1)[lower]}
    knowing, ignoring = (ease.solve(released, {}, Noise(std))["item_weights"] for std in (STD, 0.0))
    assert np.linalg.norm(knowing - truth) < np.linalg.norm(ignoring - truth)


def test_debiasing_without_flips_changes_nothing() -> None:
    lower = np.tri(NUM_ITEMS, dtype=np.bool_)
    triangle = true_gram()[lower]
    assert debiased(triangle, NUM_ITEMS, 0.0, 10) is triangle
    sums = {"num_users_of_item": np.arange(4.0)}
    assert_array_equal(Popularity(1, 4).debiased(sums, 0.0, 9)["num_users_of_item"], np.arange(4.0))
