"""Laws of calibration by shadow models."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.threats.leakage_metrics import auc
from fedrec_flower.threats.likelihood import calibrated, halves

SHADOWS, USERS = 8, 400


def _scores(gap: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Users differ widely in how familiar they are; training on one adds a small gap."""
    rng = np.random.default_rng(3)
    level = rng.normal(0, 5, USERS)
    trained = np.stack([halves(number, USERS) for number in range(SHADOWS)])
    member = rng.random(USERS) < 0.5
    shadows = level + gap * trained + rng.normal(0, 1, trained.shape)
    return level + gap * member + rng.normal(0, 1, USERS), shadows, trained, member


def test_each_user_is_in_half_of_the_shadow_federations() -> None:
    """Membership inference calibrated by shadow federations."""
    trained = np.stack([halves(number, 30) for number in range(SHADOWS)])
    assert_array_equal(trained.sum(axis=0), np.full(30, SHADOWS // 2))
    assert_array_equal(trained[0], ~trained[1])
    assert (trained[0] != trained[2]).any()
    assert_array_equal(halves(4, 30), halves(4, 30))


@pytest.mark.parametrize("way", ["online", "offline", "centered"])
def test_calibration_separates_members_that_the_plain_score_does_not(way: str) -> None:
    """Membership inference calibrated by shadow federations."""
    score, shadows, trained, member = _scores(gap=2.0)
    ratio = calibrated(score, shadows, trained)[way]
    assert auc(score[member], score[~member]) < 0.65
    assert auc(ratio[member], ratio[~member]) > 0.85


@pytest.mark.parametrize("way", ["online", "offline", "centered"])
def test_calibration_gives_chance_level_without_training_effect(way: str) -> None:
    """Membership inference calibrated by shadow federations."""
    score, shadows, trained, member = _scores(gap=0.0)
    ratio = calibrated(score, shadows, trained)[way]
    assert auc(ratio[member], ratio[~member]) == pytest.approx(0.5, abs=0.06)


def test_the_likelihood_ratio_by_hand() -> None:
    """Membership inference calibrated by shadow federations."""
    # User 0: with 4 and 6, without 0 and 2; user 1: with 1 and 3, without 1 and 3.
    trained = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], bool)
    shadows = np.array([[4.0, 1.0], [6.0, 3.0], [0.0, 1.0], [2.0, 3.0]])
    score = np.array([5.0, 0.0])
    shift = ((5 - 3) + (0 - 2)) / 2
    variance = (1 + 1 + 1 + 1) / 2  # squares by degrees of freedom, the same with and without
    ratio = [
        (-((x - a) ** 2) + (x - b) ** 2) / (2 * variance) for x, a, b in ((5, 5, 1), (0, 2, 2))
    ]
    found = calibrated(score, shadows, trained)
    assert shift == 0
    assert_allclose(found["online"], ratio)
    assert_allclose(found["offline"], [5 - 1, 0 - 2])
    assert_allclose(found["centered"], [5 - 3, 0 - 2])


def test_the_centered_score_is_the_strongest_with_noisy_means() -> None:
    score, shadows, trained, member = _scores(gap=0.7)
    found = {
        way: auc(r[member], r[~member]) for way, r in calibrated(score, shadows, trained).items()
    }
    assert max(found, key=lambda way: found[way]) == "centered"


def test_a_user_in_every_shadow_federation_has_no_calibrated_score() -> None:
    trained = np.stack([np.ones(4, bool), np.arange(4) < 2], axis=1)
    found = calibrated(np.zeros(2), np.zeros((4, 2)), trained)
    for score in found.values():
        assert_array_equal(np.isnan(score), [True, False])
