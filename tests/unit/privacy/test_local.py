"""Laws of local mechanisms: noise on every row, lies that average out, items that were added."""

from dataclasses import replace
from math import exp, inf
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.instantiate import build
from fedrec_flower.core.updates import UpdateSum
from fedrec_flower.data.prepared import ClientData, Columns, starts
from fedrec_flower.models.ease import EASE
from fedrec_flower.models.popularity import Popularity
from fedrec_flower.privacy.accounting import epsilon_of
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.pseudo_items import PseudoItems
from fedrec_flower.privacy.randomized_response import RandomizedResponse
from fedrec_flower.privacy.requirements import AggregationFacts, Published, RunFacts
from tests.helpers.federations import _composed

RUN = RunFacts(
    num_clients=500,
    max_users=1,
    clients_per_round=100,
    num_rounds=6,
    model="MF",
    statistics=False,
    bounded_statistics=False,
    retries=True,
    clip_range=inf,
    rounding=0.0,
    published=Published(metrics=True, choice=False, catalogue=True, seed=False),
)
SUMS = replace(RUN, model="EASE", statistics=True, bounded_statistics=True, num_rounds=1)
WAY = AggregationFacts(strategy="FedAvg", shares=True, by_sum_alone=True, by_row=False)


def make(**changes: Any) -> LocalDP:
    """The mechanism of the yaml with some values changed, and all values set."""
    node = _composed(("privacy=local_dp",))["privacy"]
    if "noise_multiplier" in changes:
        node = node | {"target_epsilon": None}
    built: LocalDP = build("privacy", node | changes)
    settled: LocalDP = build("privacy", {**node, **changes, **built.resolve(RUN)})
    return settled


def noise_of(privacy: LocalDP, clients: list[int], round_: int = 1) -> NDArray[np.float64]:
    total = UpdateSum.zeros({"table": (50, 4), "bias": (3,)}, 50)
    privacy.add_noise(total, np.array(clients, np.int64), round_, NoiseSource(1))
    return np.concatenate([value.ravel() for value in total.tensors.values()])


@pytest.mark.parametrize(("mechanism", "variance"), [("gaussian", 1.0), ("laplace", 2.0)])
def test_every_client_adds_independent_noise_to_every_value(
    mechanism: str, variance: float
) -> None:
    privacy = make(mechanism=mechanism, noise_multiplier=1.5, clip_norm=2.0)
    own = [noise_of(privacy, [client]) for client in range(200)]
    assert all(noise.all() for noise in own)
    squares, expected = np.concatenate(own) ** 2, variance * (1.5 * 2.0) ** 2
    error = squares.std() / len(squares) ** 0.5
    assert abs(squares.mean() - expected) < 4 * error
    assert abs(squares.mean() - expected / 2) > 4 * error
    assert_allclose(noise_of(privacy, [0, 1, 2]), own[0] + own[1] + own[2])
    assert not np.allclose(noise_of(privacy, [0], round_=2), own[0])


def test_local_sensitivity_is_two_clip_norms() -> None:
    gaussian = make(noise_multiplier=3.0, delta=1e-4)
    assert gaussian.epsilon(4) == epsilon_of(((3.0 / 2, 1.0, 4),), 1e-4)
    # Laplace noise of scale s hides a distance d up to exp(d / s), each time.
    assert make(mechanism="laplace", noise_multiplier=3.0).epsilon(4) == pytest.approx(4 * 2 / 3)


@pytest.mark.parametrize("mechanism", ["gaussian", "laplace"])
def test_a_client_sampled_in_every_round_keeps_the_target_epsilon(mechanism: str) -> None:
    assert 4.98 < make(mechanism=mechanism, target_epsilon=5.0).epsilon(RUN.num_rounds) <= 5.0
    assert make(mechanism=mechanism, target_epsilon=inf).epsilon(1) == inf


def test_local_epsilon_is_that_of_the_most_sampled_client_and_is_restored() -> None:
    keeper, again = (
        make(noise_multiplier=4.0, delta=1e-4).server_mechanism(RUN, NoiseSource(1)) for _ in "ab"
    )
    assert keeper.epsilon == 0.0
    for round_, cohort in enumerate(([1, 2], [2, 3], [2, 4])):
        keeper.cohort(np.array(cohort), round_)
    assert keeper.round_metrics() == {"epsilon": epsilon_of(((2.0, 1.0, 3),), 1e-4), "delta": 1e-4}
    again.restore(keeper.state())
    assert again.facts() == keeper.facts()


@pytest.mark.parametrize(
    ("privacy", "run", "reason"),
    [
        (make(), SUMS, r"choose privacy=randomized_response"),
        (make(), replace(RUN, max_users=3), r"up to 3 users"),
        (RandomizedResponse(8.0, 10), RUN, r"choose privacy=local_dp"),
        (RandomizedResponse(8.0, 10), replace(SUMS, num_rounds=2), r"set num_rounds=1"),
        (
            RandomizedResponse(8.0, 10),
            replace(SUMS, bounded_statistics=False),
            r"choose popularity, itemknn or ease",
        ),
        (PseudoItems(1.0, dense=True), RUN, r"set strategy.aggregation=all_clients"),
    ],
)
def test_what_a_mechanism_does_not_cover_is_refused(
    privacy: LocalDP | RandomizedResponse | PseudoItems, run: RunFacts, reason: str
) -> None:
    aggregation = replace(WAY, by_row=isinstance(privacy, PseudoItems))
    with pytest.raises(ConfigError, match=reason):
        privacy.check(run, aggregation)


ITEMS = [[0, 3, 4], [3], [], [1, 2, 3, 5]]
NUM_ITEMS = 6


def holding(items: list[list[int]], rating: NDArray[np.float32] | None = None) -> ClientData:
    """A client with so many users."""
    flat = np.array([item for own in items for item in own], np.int32)
    train = Columns(starts([len(own) for own in items]), flat, rating)
    empty = Columns(np.zeros(len(items) + 1, np.int64), np.zeros(0, np.int32), None)
    codes = np.arange(len(items), dtype=np.int32)
    return ClientData(0, 1, 0, codes, train, empty, empty, np.zeros((len(items), 0), np.float32))


def told(epsilon: float, max_items: int, seed: int) -> Columns:
    privacy = RandomizedResponse(epsilon, max_items)
    return privacy.training_data(holding(ITEMS), NUM_ITEMS, NoiseSource(seed)).train


def test_debiased_sums_are_unbiased() -> None:
    from scipy.stats import norm

    rate = RandomizedResponse(6.0, 4).flip_rate
    assert rate == 1 / (1 + exp(6.0 / 8))
    truth = holding(ITEMS).train
    for model in (Popularity(1, NUM_ITEMS), EASE(1, NUM_ITEMS, 1.0)):
        name = model.statistic_names[0]
        drawn = np.array(
            [
                model.debiased(model.statistics(told(6.0, 4, seed), {}), rate, 4)[name]
                for seed in range(2000)
            ]
        )
        error = drawn.std(axis=0) / len(drawn) ** 0.5
        score = (drawn.mean(axis=0) - model.statistics(truth, {})[name]) / error
        assert np.abs(score).max() < norm.isf(1e-6 / len(score))


def test_report_odds_of_an_item_follow_from_epsilon() -> None:
    epsilon, seeds = 2.0, 4000
    answers = [told(epsilon, 1, seed) for seed in range(seeds)]
    tells_3 = np.mean([3 in own.slice(1, 2).item for own in answers])  # its only item
    claims_3 = np.mean([3 in own.slice(2, 3).item for own in answers])  # no items
    rate = 1 / (1 + exp(epsilon / 2))
    error = 4 * (0.25 / seeds) ** 0.5
    assert tells_3 == pytest.approx(1 - rate, abs=error)
    assert claims_3 == pytest.approx(rate, abs=error)
    # Two kept items differ in two answers: their odds multiply to the epsilon.
    assert ((1 - rate) / rate) ** 2 == pytest.approx(exp(epsilon))


def test_without_flips_a_user_reports_at_most_max_items() -> None:
    kept = told(inf, 2, 1)
    assert np.diff(kept.offsets).tolist() == [2, 1, 0, 2]
    for user, own in enumerate(ITEMS):
        assert set(kept.slice(user, user + 1).item.tolist()) <= set(own)
    assert len({tuple(told(inf, 2, seed).item.tolist()) for seed in range(9)}) > 1


@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0, 9.0])
def test_pseudo_items_are_mixed_with_the_users_items(ratio: float) -> None:
    filled = (
        PseudoItems(ratio, dense=False)
        .training_data(holding(ITEMS), NUM_ITEMS, NoiseSource(1))
        .train
    )
    for user, own in enumerate(ITEMS):
        item = filled.slice(user, user + 1).item.tolist()
        added = min(round(ratio * len(own)), NUM_ITEMS - len(own))
        assert len(item) == len(set(item)) == len(own) + added
        assert [i for i in item if i in own] == own


def test_pseudo_items_have_the_users_mean_rating_and_do_not_change() -> None:
    data = holding([[0, 3], [1]], np.array([2.0, 5.0, 4.0], np.float32))
    privacy = PseudoItems(1.0, dense=False)
    filled, again = (privacy.training_data(data, NUM_ITEMS, NoiseSource(1)).train for _ in "ab")
    assert_array_equal(filled.item, again.item)
    assert filled.rating is not None
    rated = dict(zip(filled.slice(0, 1).item.tolist(), filled.rating[:4].tolist(), strict=True))
    assert rated.pop(0) == 2.0
    assert rated.pop(3) == 5.0
    assert list(rated.values()) == [(2 + 5) / 2] * 2
    assert filled.rating[4:].tolist() == [4.0] * 2


def test_pseudo_items_have_no_epsilon() -> None:
    facts = PseudoItems(1.0, dense=True).server_mechanism(RUN, NoiseSource(1)).facts()
    assert "epsilon" not in facts
    assert "not a guarantee" in facts["privacy"]["mechanism"]


@pytest.mark.parametrize(
    ("privacy", "values", "reason"),
    [
        (RandomizedResponse, (0.0, 3), r"privacy.epsilon must be above 0: 0.0"),
        (RandomizedResponse, (1.0, 0), r"privacy.max_items must be at least 1: 0"),
        (PseudoItems, (-1.0, True), r"privacy.ratio must not be negative: -1.0"),
    ],
)
def test_an_impossible_value_names_itself(privacy: Any, values: Any, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        privacy(*values)
