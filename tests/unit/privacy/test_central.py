"""Laws of central differential privacy: cohorts, noise, adaptive bounds, state, refusals."""

from dataclasses import replace
from math import comb, inf
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.communication.secure_aggregation.secagg import SecAgg
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.itemknn import ItemKNN
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.privacy.accounting import epsilon_of
from fedrec_flower.privacy.central import CentralDP
from fedrec_flower.privacy.gaussian import CentralDPServer
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.requirements import AggregationFacts, Published, RunFacts
from tests.helpers.federations import _composed

RUN = RunFacts(
    num_clients=1000,
    max_users=1,
    clients_per_round=100,
    num_rounds=10,
    model="MF",
    statistics=False,
    bounded_statistics=False,
    retries=False,
    clip_range=inf,
    rounding=0.0,
    published=Published(metrics=True, choice=False, catalogue=True, seed=False),
)
WAY = AggregationFacts(strategy="FedAvg", shares=True, by_sum_alone=True, by_row=False)
SHAPES = {"table": (30, 4), "bias": (5,)}


def make(run: RunFacts = RUN, **changes: Any) -> CentralDP:
    """The mechanism of the yaml with some values changed, and all values set."""
    node = _composed(("privacy=central_dp",))["privacy"]
    if "noise_multiplier" in changes:
        node = node | {"target_epsilon": None}
    node = node | changes
    built: CentralDP = build("privacy", node)
    settled: CentralDP = build("privacy", {**node, **built.resolve(run)})
    return settled


def curator(run: RunFacts = RUN, seed: int = 1, **changes: Any) -> CentralDPServer:
    return make(run, **changes).server_mechanism(run, NoiseSource(seed))


def test_noise_has_the_stated_variance_and_not_half_of_it() -> None:
    from scipy.stats import chi2

    # An absolute size, so that a wrong scale in the code cannot hide in the expectation.
    keeper, std = curator(noise_multiplier=1.5, clip_norm=2.0), 1.5 * 2.0
    drawn = [
        np.concatenate([v.ravel() for v in keeper.release(nothing(), SHAPES, r).tensors.values()])
        for r in range(200)
    ]
    values = np.concatenate(drawn)
    low, high = chi2.ppf([1e-4, 1 - 1e-4], len(values))
    assert low < (values**2).sum() / std**2 < high
    assert not low < (values**2).sum() / (std**2 / 2) < high
    assert abs(values.mean()) < 4 * std / len(values) ** 0.5


def nothing() -> UpdateSum:
    return UpdateSum({}, 0.0, np.zeros(0))


def test_noise_is_added_to_the_sum_once_and_the_sum_divided_by_the_expected_cohort() -> None:
    total = UpdateSum({"bias": np.full(5, 60.0)}, 87.0, np.ones(3))
    released = curator(noise_multiplier=0.0).release(total, {"bias": (5,)}, 1)
    assert released.weight == RUN.clients_per_round  # not 87, who came
    assert len(released.row_weight) == 0
    assert_array_equal(released.tensors["bias"], 60.0)
    noise = curator(noise_multiplier=1.0).release(nothing(), {"bias": (5,)}, 1).tensors["bias"]
    both = curator(noise_multiplier=1.0).release(total, {"bias": (5,)}, 1).tensors["bias"]
    assert_allclose(both, 60.0 + noise)
    assert_array_equal(total.tensors["bias"], 60.0)


def test_noise_covers_the_rounding_error_of_a_contribution() -> None:
    rounded = replace(RUN, clip_range=1.0, rounding=0.25)
    stds = [curator(run, noise_multiplier=2.0, clip_norm=0.5).noise_std for run in (RUN, rounded)]
    float32 = RUN.num_clients * 2**-23  # sums of 1000 clients travel in float32
    assert stds == [2.0 * 0.5 * (1 + float32), 2.0 * (0.5 + 0.25)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"clip_norm": 1.5}, "clip_range=1.5"),
        ({"adaptive_clipping": True}, "may raise its bound"),
    ],
)
def test_a_bound_that_rounding_could_break_is_refused(changes: dict[str, Any], words: str) -> None:
    rounded = replace(RUN, clip_range=1.0, rounding=0.25)
    with pytest.raises(ConfigError, match=words):
        make(rounded, noise_multiplier=1.0, **changes).check(rounded, WAY)
    make(RUN, noise_multiplier=1.0, **changes).check(RUN, WAY)


def test_an_empty_cohort_is_released_like_any_other() -> None:
    released = curator(noise_multiplier=1.0).release(nothing(), SHAPES, 1)
    assert {n: v.shape for n, v in released.tensors.items()} == SHAPES
    assert all(value.all() for value in released.tensors.values())


def test_no_two_rounds_and_no_two_tensors_have_the_same_noise() -> None:
    keeper, shapes = curator(noise_multiplier=1.0), {"one": (4,), "other": (4,)}
    drawn = [v for r in (1, 2) for v in keeper.release(nothing(), shapes, r).tensors.values()]
    assert len({value.tobytes() for value in drawn}) == 4


def test_poisson_sampling_samples_each_client_independently() -> None:
    keeper = curator()
    asked = [keeper.cohort(np.arange(100), round_) for round_ in range(300)]
    sizes = np.array([len(cohort) for cohort in asked])
    mean, variance = 1000 * 0.1, 1000 * 0.1 * 0.9  # binomial
    assert abs(sizes.mean() - mean) < 4 * (variance / 300) ** 0.5
    assert 0.7 * variance < sizes.var() < 1.4 * variance
    often = np.bincount(np.concatenate(asked), minlength=1000)
    assert often.max() < 30 + 6 * (300 * 0.09) ** 0.5


def test_poisson_sampling_at_rate_one_samples_all_clients() -> None:
    run = replace(RUN, clients_per_round=1000)
    assert_array_equal(curator(run).cohort(np.arange(1000), 1), np.arange(1000))


def test_epsilon_is_that_of_the_accountant_for_the_releases() -> None:
    keeper = curator(noise_multiplier=1.0, delta=1e-3)
    assert keeper.epsilon == 0.0
    for round_ in range(3):
        keeper.release(nothing(), SHAPES, round_)
    assert keeper.epsilon == epsilon_of(((1.0, 0.1, 3),), 1e-3)
    assert keeper.round_metrics() == {"epsilon": keeper.epsilon, "delta": 1e-3}


def test_a_fixed_cohort_is_accounted_for_by_the_most_sampled_client() -> None:
    keeper = curator(noise_multiplier=2.0, delta=1e-3, sampling="fixed")
    for round_, cohort in enumerate(([1, 2], [2, 3], [4, 5])):
        assert_array_equal(keeper.cohort(np.array(cohort), round_), cohort)
        keeper.release(nothing(), SHAPES, round_)
    assert keeper.epsilon == epsilon_of(((2.0, 1.0, 2),), 1e-3)


@pytest.mark.parametrize("sampling", ["poisson", "fixed"])
def test_a_target_is_kept_by_the_last_round(sampling: str) -> None:
    keeper = curator(target_epsilon=4.0, sampling=sampling)
    for round_ in range(RUN.num_rounds):
        keeper.cohort(np.arange(100), round_)
        keeper.release(nothing(), SHAPES, round_)
    assert 3.98 < keeper.epsilon <= 4.0


def test_a_restored_server_mechanism_continues() -> None:
    whole, first, second = (curator(adaptive_clipping=True, noise_multiplier=1.0) for _ in range(3))
    shapes = SHAPES | whole.extra_tensors
    told = UpdateSum({"unclipped": np.array([20.0])}, 100.0, np.zeros(0))
    for round_ in range(4):
        if round_ == 2:
            second.restore(first.state())
        for keeper in (whole, first if round_ < 2 else second):
            keeper.cohort(np.arange(3), round_)
            keeper.release(told, shapes, round_)
    assert second.round_metrics() == whole.round_metrics()
    assert second.epsilon > first.epsilon


def test_adaptive_clipping_costs_as_much_as_its_noise_multiplier() -> None:
    # Both releases as one of a vector of two parts, each scaled to a sensitivity of its own:
    # 1 / multiplier**2 = 1 / of_updates**2 + (1 / 2)**2 / count_noise**2.
    privacy = make(adaptive_clipping=True, noise_multiplier=1.0, count_noise=5.0)
    parts = privacy.update_multiplier**-2 + 0.5**2 / 5.0**2
    assert parts == pytest.approx(1.0**-2)
    assert privacy.update_multiplier > 1.0


def test_votes_are_half_for_short_updates_and_minus_half_for_long_ones() -> None:
    privacy = make(adaptive_clipping=True, noise_multiplier=1.0)
    bias = np.array([[0.3], [0.5], [2.0]], np.float32)
    none = np.zeros(0, np.int64)
    sent = Updates(np.arange(3), np.ones(3), np.zeros(4, np.int64), none, {"bias": bias})
    assert privacy.apply(sent, (), 0.5).tensors["unclipped"].tolist() == [[0.5], [0.5], [-0.5]]


def test_the_adaptive_bound_converges_to_the_quantile() -> None:
    tensor_norms = np.linspace(0.0, 10.0, 100)
    keeper = curator(
        adaptive_clipping=True, noise_multiplier=0.5, target_quantile=0.3, count_noise=1.0
    )
    for round_ in range(60):
        votes = np.where(tensor_norms <= keeper.clip_norm, 0.5, -0.5).sum()
        told = UpdateSum({"unclipped": np.array([votes])}, 100.0, np.zeros(0))
        keeper.release(told, keeper.extra_tensors, round_)
    assert keeper.clip_norm == pytest.approx(3.0, abs=0.4)
    alike = make(adaptive_clipping=True, noise_multiplier=0.5, count_noise=1.0)
    bound = keeper.clip_norm * (1 + RUN.num_clients * 2**-23)
    assert keeper.noise_std == pytest.approx(alike.update_multiplier * bound)


HISTORY = Columns(np.array([0, 3, 3, 5]), np.array([0, 2, 3, 1, 2], np.int32), None)
EXACT = [Popularity(1, 4), ItemKNN(1, 4, 2, 0.0), EASE(1, 4, 1.0)]


@pytest.mark.parametrize("model", EXACT, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("bound", [0.5, 2.0, 100.0])
def test_no_user_contributes_longer_statistics_than_the_bound(
    model: EASE | ItemKNN | Popularity, bound: float
) -> None:
    share = make(clip_norm=bound).user_weights(model, HISTORY, np.arange(4))
    lengths = []
    for user in range(3):
        own = HISTORY.slice(user, user + 1)
        told = model.statistics(own, {}, share[user : user + 1])
        lengths.append(float(np.linalg.norm(np.concatenate(list(told.values())))))
        alone = np.concatenate(list(model.statistics(own, {}).values()))
        length = model.statistic_norms(own, np.array([0, 1]))
        assert length == pytest.approx(np.linalg.norm(alone))
    assert max(lengths) <= bound
    if bound < 1:
        assert [lengths[0], lengths[2]] == pytest.approx([bound, bound], rel=1e-4)
    if bound > 50:
        assert_array_equal(share, 1.0)


@pytest.mark.parametrize("model", EXACT, ids=lambda model: type(model).__name__)
def test_user_weights_of_one_change_nothing(model: EASE | ItemKNN | Popularity) -> None:
    plain, shared = (model.statistics(HISTORY, {}, share) for share in (None, np.ones(3)))
    for name, value in plain.items():
        assert_array_equal(shared[name], value)


REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (
        {},
        {"max_users": 7},
        {},
        r"up to 7 users: choose partition=user, or set privacy.unit=client",
    ),
    ({}, {}, {"by_row": True}, r"set strategy.aggregation=all_clients"),
    ({}, {}, {"by_sum_alone": False}, r"FedAvg uses more of the clients than the sum"),
    ({}, {}, {"shares": False}, r"choose privacy=none"),
    ({}, {"retries": True}, {}, r"set min_completion=0"),
    ({}, {"statistics": True}, {}, r"have no known bound under model=MF"),
    (
        {"adaptive_clipping": True},
        {"statistics": True, "bounded_statistics": True},
        {},
        r"adaptive_clipping=true learns its bound over rounds",
    ),
]


@pytest.mark.parametrize(("changes", "run", "aggregation", "reason"), REFUSED)
def test_what_the_mechanism_does_not_cover_is_refused(
    changes: dict[str, Any], run: dict[str, Any], aggregation: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(**changes).check(replace(RUN, **run), replace(WAY, **aggregation))
    make().check(RUN, WAY)


def test_clients_with_several_users_may_be_protected_as_clients() -> None:
    make(unit="client").check(replace(RUN, max_users=7), WAY)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"clip_norm": 0.0}, r"clip_norm must be above 0: 0.0"),
        ({"clip_norm": inf}, r"clip_norm=inf does not clip"),
        ({"noise_multiplier": 1.0, "target_epsilon": 2.0}, r"exactly one of them must be given"),
        ({"target_epsilon": None}, r"exactly one of them must be given"),
        ({"target_epsilon": -1.0}, r"target_epsilon must be above 0: -1"),
        ({"noise_multiplier": -1.0}, r"noise_multiplier must be finite, 0 or more: -1"),
        ({"delta": 1.0}, r"delta must be between 0 and 1: 1"),
        ({"target_quantile": 2.0}, r"target_quantile must be a share from 0 to 1: 2"),
        ({"count_noise": 0.0}, r"count_noise must be above 0: 0"),
        ({"adaptive_clipping": True, "clipping": "per_tensor"}, r"privacy.clipping=flat"),
        (
            {"adaptive_clipping": True, "noise_multiplier": 3.0, "count_noise": 1.5},
            r"count_noise=1.5 spends the whole budget of noise_multiplier=3: raise it above 1.5",
        ),
    ],
)
def test_an_invalid_value_is_rejected_with_the_fix(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make(**changes)


def test_an_infinite_budget_with_no_bound_is_no_privacy() -> None:
    privacy = make(target_epsilon=inf, clip_norm=inf)
    assert privacy.noise_multiplier == 0.0
    keeper = privacy.server_mechanism(RUN, NoiseSource(1))
    keeper.release(nothing(), SHAPES, 1)
    assert keeper.noise_std == 0.0
    assert keeper.epsilon == inf


# --- masks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [1, 7])
@pytest.mark.parametrize("hosted", [100, 180, 250, 1000])
def test_poisson_cohorts_without_a_masked_sum_are_rarer_than_delta_allows(
    hosted: int, groups: int
) -> None:
    rate, others, least = 0.1, hosted - 1, 5
    too_few = sum(comb(others, n) * rate**n * (1 - rate) ** (others - n) for n in range(least))
    keeper = curator(noise_multiplier=1.0, delta=1e-3)
    if RUN.num_rounds * groups * too_few > 1e-3 * 1e-3:
        with pytest.raises(ConfigError, match="gives no sum if fewer sampled clients"):
            keeper.check_secure_aggregation(groups, hosted, least)
    else:
        keeper.check_secure_aggregation(groups, hosted, least)
    curator(noise_multiplier=1.0, sampling="fixed").check_secure_aggregation(groups, hosted, least)
    curator(noise_multiplier=0.0).check_secure_aggregation(groups, hosted, least)


def test_a_client_that_decides_on_a_masked_sum_is_rejected() -> None:
    sure = replace(RUN, clients_per_round=RUN.num_clients)
    curator(sure, noise_multiplier=1.0).check_secure_aggregation(1, 11, 10)
    with pytest.raises(ConfigError, match="with probability up to 1, more"):
        curator(sure, noise_multiplier=1.0).check_secure_aggregation(1, 10, 10)


def test_a_node_counts_the_clients_of_itself_and_its_neighbours() -> None:
    secure = SecAgg(4, 0.6, 3, 2, "examples", 1.0, None, 32, "nearest", 10.0)
    assert secure.counted([3, 1, 2, 5, 4]) == (1, 15)
    assert secure.counted([3, 1, 2, 5, 4, 9]) == (6, 15)
    assert replace(secure, num_neighbours=None).counted([1] * 50) == (1, 50)
