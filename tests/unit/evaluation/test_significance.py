"""Laws of the significance tests, and comparisons with known values."""

from itertools import permutations
from math import comb, isnan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import permutation_test

from fedrec_flower.core.random import generator
from fedrec_flower.evaluation.significance import holm, majority, mcnemar, paired_bootstrap

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=6)


def _hits(both: int, gained: int, lost: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    one = np.repeat([True, True, False, False], [both, gained, lost, neither])
    other = np.repeat([True, False, True, False], [both, gained, lost, neither])
    return one, other


def _rng() -> np.random.Generator:
    return generator(1, "test")


def test_mcnemar_equals_the_binomial_tail() -> None:
    one, other = _hits(both=5, gained=8, lost=2, neither=4)
    assert mcnemar(one, other) == pytest.approx(2 * sum(comb(10, i) for i in range(3)) / 2**10)


def test_mcnemar_equals_a_known_table() -> None:
    """Approval of a premier, two surveys of the same people (Agresti 2002, table 10.1)."""
    one, other = _hits(both=794, gained=150, lost=86, neither=570)
    exact = 2 * sum(comb(236, i) for i in range(87)) / 2**236
    assert mcnemar(one, other) == pytest.approx(exact)
    assert exact == pytest.approx(3.7e-5, rel=0.02)  # as published


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_mcnemar_is_symmetric_and_1_for_equal_models(
    pairs: list[tuple[bool, bool]],
) -> None:
    one, other = np.array(pairs).T
    assert mcnemar(one, other) == mcnemar(other, one)
    assert mcnemar(one, one) == 1


def test_paired_bootstrap_is_1_for_equal_models() -> None:
    one = _rng().random(50)
    assert paired_bootstrap(one, one, _rng()) == 1


def test_paired_bootstrap_is_symmetric() -> None:
    one, other = _rng().random((2, 50))
    assert paired_bootstrap(one, other, _rng()) == paired_bootstrap(other, one, _rng())


def test_paired_bootstrap_of_a_constant_difference_is_the_smallest_p() -> None:
    one = _rng().random(50)
    assert paired_bootstrap(one + 0.1, one, _rng()) == 1 / 10_000


def test_paired_bootstrap_agrees_with_a_permutation_test() -> None:
    rng = _rng()
    one = rng.random(200)
    other = one + rng.normal(0.02, 0.2, 200)
    reference = permutation_test(
        (one, other), lambda x, y: np.mean(x - y), permutation_type="samples",
        n_resamples=20_000, rng=rng,
    ).pvalue  # fmt: skip
    assert 0.05 < reference < 0.5  # at either end, all tests would agree
    assert paired_bootstrap(one, other, _rng()) == pytest.approx(reference, abs=0.02)


def test_paired_bootstrap_has_the_nominal_false_positive_rate() -> None:
    """Without a difference p is below a tenth in a tenth of the cases."""
    rng = _rng()
    found = [paired_bootstrap(rng.random(60), rng.random(60), rng) < 0.1 for _ in range(200)]
    assert np.mean(found) == pytest.approx(0.1, abs=3 * (0.1 * 0.9 / 200) ** 0.5)


def test_holm_equals_a_worked_example() -> None:
    corrected = [2 * 0.03, max(2 * 0.03, 1 * 0.04), 3 * 0.01, 4 * 0.005]
    assert holm([0.03, 0.04, 0.01, 0.005]) == pytest.approx(corrected)


@given(P_VALUES)
def test_holm_keeps_the_order_and_is_between_one_test_and_bonferroni(
    values: list[float],
) -> None:
    corrected = np.array(holm(values))
    assert (np.diff(corrected[np.argsort(values, kind="stable")]) >= 0).all()
    assert (corrected >= values).all()
    assert (corrected <= np.minimum(1, len(values) * np.array(values)) + 1e-15).all()


def test_holm_ignores_missing_p_values() -> None:
    assert holm([0.5, float("nan"), 0.01])[::2] == holm([0.5, 0.01])
    assert isnan(holm([float("nan")])[0])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.03], 0.03),
        ([0.03, 0.01], 0.03),  # both of two
        ([0.03, 0.5, 0.01], 0.03 * 3 / 2),  # two of three
        ([0.01, 0.6, 0.7], 0.6 * 3 / 2),
        ([0.9, 0.9, 0.9], 1.0),
    ],
)
def test_majority_needs_most_tests_to_be_significant(values: list[float], expected: float) -> None:
    for order in permutations(values):
        assert majority(order) == pytest.approx(expected)


def test_majority_without_tests_is_nan() -> None:
    assert isnan(majority([]))


def test_majority_has_the_nominal_false_positive_rate_for_equal_seeds() -> None:
    p = np.linspace(0.001, 1, 1000)  # as p-values fall without a difference
    found = np.array([majority([value] * 3) for value in p])
    assert np.mean(found <= 0.05) <= 0.05
