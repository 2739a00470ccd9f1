"""Laws of the draws of an epoch: input dropout and noise."""

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import kstest

from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.negative_sampling import Sampler

if TYPE_CHECKING:
    from tests.conftest import MakeClient

NUM_ITEMS = 12


def test_input_dropout_keeps_its_share_and_depends_only_on_the_client(
    make_client: "MakeClient",
) -> None:
    members = [make_client([[1, 2]], client=client) for client in (3, 8)]
    both, one = (Cohort.gather(m, spare_held_out=False) for m in (members, members[1:]))
    sampler = Sampler("ranking", width=1, num_negatives=1, num_items=NUM_ITEMS, seed=0, step_size=1)
    size, share = 20_000, 0.7
    kept = sampler.dropout_mask(both, np.array([size, size]), 1, 0, share)
    assert abs(kept.mean() - share) < 0.01
    np.testing.assert_array_equal(
        sampler.dropout_mask(one, np.array([size]), 1, 0, share), kept[size:]
    )
    for when in ((2, 0), (1, 1)):  # another round, another epoch
        other = sampler.dropout_mask(both, np.array([size, size]), *when, share)
        assert abs((other == kept).mean() - (share**2 + (1 - share) ** 2)) < 0.01
    assert sampler.dropout_mask(both, np.array([9, 9]), 1, 0, 1.0).all()


def test_noise_is_standard_normal_and_depends_only_on_client_and_epoch(
    make_client: "MakeClient",
) -> None:
    members = [make_client([[1, 2], [3]], client=client) for client in (3, 8)]
    both, one = (Cohort.gather(m, spare_held_out=False) for m in (members, members[1:]))
    sampler = Sampler("ranking", width=1, num_negatives=1, num_items=NUM_ITEMS, seed=0, step_size=1)
    drawn = sampler.noise(both, 1, 0, 20_000)
    again = sampler.noise(one, 1, 0, 20_000)
    assert drawn is not None
    assert drawn.shape == (4, 20_000)
    assert drawn.dtype == np.float32
    assert kstest(drawn.ravel(), "norm").pvalue > 0.001
    np.testing.assert_array_equal(again, drawn[2:])
    for other in (sampler.noise(one, 2, 0, 20_000), sampler.noise(one, 1, 1, 20_000)):
        assert other is not None
        assert abs(np.corrcoef(other.ravel(), drawn[2:].ravel())[0, 1]) < 0.03  # 6 deviations
    assert sampler.noise(both, 1, 0, 0) is None
