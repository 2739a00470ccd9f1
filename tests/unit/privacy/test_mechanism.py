"""Laws of privacy that every mechanism shares."""

from math import inf

import numpy as np
import pytest

from fedrec_flower.core.random import Secret, draw, streams
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.privacy import noise as chance_module
from fedrec_flower.privacy.mechanism import NoPrivacy, NoPrivacyServer
from fedrec_flower.privacy.noise import NoiseSource, laplace
from fedrec_flower.privacy.statement import noise_origin, persistent_noise_origin


def test_no_privacy_is_the_identity() -> None:
    tensors = {"table": np.ones((2, 3), np.float32)}
    updates = Updates(np.array([3]), np.array([5.0]), np.array([0, 2]), np.array([1, 4]), tensors)
    assert NoPrivacy().apply(updates, {"table"}, inf) is updates
    assert updates.tensors["table"].tolist() == [[1.0] * 3] * 2


def test_no_privacy_server_keeps_the_cohort_and_the_sum() -> None:
    sampled, total = np.array([1, 5]), UpdateSum.zeros({"bias": (2,)}, 3)
    assert NoPrivacyServer().cohort(sampled, 1) is sampled
    assert NoPrivacyServer().release(total, {"bias": (2,)}, 1) is total
    assert (
        NoPrivacyServer().facts()
        == NoPrivacyServer().round_metrics()
        == NoPrivacyServer().state()
        == {}
    )


@pytest.mark.parametrize("seed", [3, None])
def test_noise_has_its_stated_distribution(seed: int | None) -> None:
    from scipy.stats import kstest

    source = NoiseSource(seed).stream("test")
    size, unlikely = 4000, 1e-6
    assert kstest(source.normal((size,)), "norm").pvalue > unlikely
    assert kstest(source.uniform((size,)), "uniform").pvalue > unlikely
    assert kstest(laplace(source, (size,)), "laplace").pvalue > unlikely
    assert kstest(1.4 * source.normal((size,)), "norm").pvalue < unlikely  # it would be found


def test_a_seed_repeats_and_the_operating_system_does_not() -> None:
    shape = (2, 3)
    one, again, other = (NoiseSource(s).stream("noise", 4, 2).normal(shape) for s in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)
    first, second = (NoiseSource(None).stream("noise", 4, 2).normal(shape) for _ in range(2))
    assert not np.array_equal(first, second)


def test_uniform_draws_are_never_zero_or_one() -> None:
    drawn = NoiseSource(None).stream("test").uniform((10_000,))
    assert 0 < drawn.min() < drawn.max() < 1


def test_persistent_streams_of_a_secret_come_from_a_cipher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thresholded report shows outputs, from which those of PCG64 could be continued."""

    def refuse(*_: object) -> None:
        raise AssertionError("PCG64 is no cipher")

    secret = Secret(bytes(range(32)))
    with monkeypatch.context() as patch:
        patch.setattr(chance_module, "generator", refuse)
        source = NoiseSource(secret).persistent_stream("report", 7)
        first, second = source.uniform((2, 3)), source.uniform((4,))
        once = NoiseSource(secret).persistent_stream("report", 7).uniform((10,))
    blocks = draw(streams(secret, "report", 0, np.array([7])), np.arange(10))
    assert np.array_equal(once, ((blocks >> np.uint64(11)) + 0.5) * 2.0**-53)
    assert np.array_equal(once, np.concatenate([first.ravel(), second]))
    for role, client in (("report", 8), ("other", 7)):
        assert not np.isin(
            NoiseSource(secret).persistent_stream(role, client).uniform((10,)), once
        ).any()


def test_persistent_streams_have_their_stated_distribution() -> None:
    from scipy.stats import kstest

    source = NoiseSource(Secret(bytes(range(32)))).persistent_stream("test", 1)
    for drawn, law in ((source.uniform((4000,)), "uniform"), (source.normal((4000,)), "norm")):
        assert kstest(drawn, law).pvalue > 1e-6


def test_the_summary_states_the_origin_of_flips() -> None:
    assert "secret of each node" in persistent_noise_origin(NoiseSource(None))
    assert persistent_noise_origin(NoiseSource(3)) == noise_origin(NoiseSource(3))
