"""Laws of membership inference: a history that the item vectors explain is familiar."""

import numpy as np
import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.threats.membership_inference import MembershipInference

TWO_TASTES = np.array([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 3)


def attack(unseen_weight: float = 0.1, ridge: float = 1e-3) -> MembershipInference:
    return MembershipInference("familiarity", 4, unseen_weight, ridge)


@pytest.mark.parametrize("number", [0, 2, 5])
def test_shadow_federations_come_in_pairs(number: int) -> None:
    """Membership inference calibrated by shadow federations."""
    with pytest.raises(ConfigError, match=rf"attack\.num_shadows must be an even .* 4: {number}"):
        MembershipInference("shadow", number, 0.1, 1e-3)


def test_a_history_of_related_items_is_more_familiar() -> None:
    same, mixed = (np.array(items, np.int32) for items in ([0, 1, 2], [0, 3]))
    familiar = attack(unseen_weight=0.5).familiarity(TWO_TASTES, [same, mixed])
    assert familiar[0] > familiar[1]


def test_familiarity_by_hand() -> None:
    # One number per item, all ones: with no pull, u minimises 2 (1 - u)^2 + w (4 - 2) u^2.
    vectors, weight = np.ones((4, 1)), 0.25
    user = 2 / (2 + weight * 2)
    (familiar,) = attack(weight, 1e-12).familiarity(vectors, [np.array([0, 1], np.int32)])
    assert familiar == pytest.approx(-((1 - user) ** 2))


def test_zero_vectors_give_equal_familiarity() -> None:
    histories = [np.array(items, np.int32) for items in ([0], [1, 2, 3])]
    assert attack().familiarity(np.zeros((5, 2)), histories).tolist() == [-1.0, -1.0]


@pytest.mark.parametrize(("weight", "ridge"), [(-0.1, 1.0), (1.1, 1.0), (0.1, 0.0)])
def test_impossible_values_are_refused(weight: float, ridge: float) -> None:
    with pytest.raises(ConfigError, match=r"attack\.(unseen_weight|ridge) must be"):
        attack(weight, ridge)
