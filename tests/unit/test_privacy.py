"""Laws of privacy that every mechanism shares."""

from math import inf

import numpy as np
import pytest

from fedrec_flower.aggregation import Updates, UpdateSum
from fedrec_flower.privacy import Chance, Curator, NoPrivacy
from fedrec_flower.privacy.chance import laplace


def test_no_privacy_is_the_identity() -> None:
    tensors = {"table": np.ones((2, 3), np.float32)}
    updates = Updates(np.array([3]), np.array([5.0]), np.array([0, 2]), np.array([1, 4]), tensors)
    assert NoPrivacy().apply(updates, {"table"}, inf) is updates
    assert updates.tensors["table"].tolist() == [[1.0] * 3] * 2


def test_its_curator_asks_whom_it_is_told_to_and_releases_what_it_gets() -> None:
    sampled, total = np.array([1, 5]), UpdateSum.zeros({"bias": (2,)}, 3)
    assert Curator().cohort(sampled, 1) is sampled
    assert Curator().release(total, {"bias": (2,)}, 1) is total
    assert Curator().facts() == Curator().figures() == Curator().state() == {}


@pytest.mark.parametrize("seed", [3, None])
def test_noise_has_the_law_it_says(seed: int | None) -> None:
    from scipy.stats import kstest

    source = Chance(seed).source("test")
    size, unlikely = 4000, 1e-6
    assert kstest(source.normal((size,)), "norm").pvalue > unlikely
    assert kstest(source.uniform((size,)), "uniform").pvalue > unlikely
    assert kstest(laplace(source, (size,)), "laplace").pvalue > unlikely
    assert kstest(1.4 * source.normal((size,)), "norm").pvalue < unlikely  # it would be found


def test_a_seed_repeats_and_the_operating_system_does_not() -> None:
    shape = (2, 3)
    one, again, other = (Chance(s).source("noise", 4, 2).normal(shape) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    first, second = (Chance(None).source("noise", 4, 2).normal(shape) for _ in range(2))
    assert not np.array_equal(first, second)


def test_uniform_draws_are_never_zero_or_one() -> None:
    drawn = Chance(None).source("test").uniform((10_000,))
    assert 0 < drawn.min() < drawn.max() < 1
