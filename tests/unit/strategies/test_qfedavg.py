"""Laws of q-FedAvg's weights, against the paper's formula and Flower's."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from flwr.serverapp.strategy.qfedavg import compute_delta_and_h
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from fedrec_flower.core.updates import UpdateSum, mean_over_all_clients, mean_over_touching_clients
from fedrec_flower.strategies.qfedavg import fair_sum
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, cohorts, updates

EVERY_ITEM = list(range(NUM_ITEMS))


def total(
    cohort: list[Client], losses: list[float], q: float, lipschitz: float, loss_cap: float = inf
) -> UpdateSum:
    sent = updates(cohort)
    return fair_sum(sent, np.array(losses), SHAPES, TABLES, NUM_ITEMS, q, lipschitz, loss_cap)


@given(cohorts(), st.lists(st.floats(0, 10), min_size=5, max_size=5))
def test_fair_sum_with_q_zero_is_the_plain_mean(cohort: list[Client], losses: list[float]) -> None:
    fair = total(cohort, losses[: len(cohort)], q=0.0, lipschitz=3.0)
    plain = UpdateSum.zeros(SHAPES, NUM_ITEMS)
    plain.add(updates(cohort), TABLES)
    for name, mean in mean_over_touching_clients(plain, TABLES).items():
        assert_allclose(mean_over_touching_clients(fair, TABLES)[name], mean, rtol=1e-5, atol=1e-6)
    for name, mean in mean_over_all_clients(plain).items():
        assert_allclose(mean_over_all_clients(fair)[name], mean, rtol=1e-5, atol=1e-6)


@given(cohorts(least=2), st.floats(0.1, 3), st.floats(0, 2))
def test_fair_sum_equals_the_formula_of_the_paper(
    cohort: list[Client], q: float, lipschitz: float
) -> None:
    losses = [0.2 + place for place in range(len(cohort))]
    fair = total(cohort, losses, q, lipschitz)
    delta, divisor = np.zeros(SHAPES["dense"]), 0.0
    for client, loss in zip(cohort, losses, strict=True):
        norm = sum(float(np.square(client.whole(name)).sum()) for name in SHAPES)
        delta += client.weight * loss**q * client.whole("dense")
        divisor += client.weight * (loss**q + q * lipschitz * loss ** (q - 1) * norm)
    assert_allclose(mean_over_all_clients(fair)["dense"], delta / divisor, rtol=1e-4, atol=1e-6)


@given(cohorts(least=2), st.floats(0.1, 3), st.floats(0.05, 2))
def test_fair_sum_of_equal_weights_equals_flowers(
    cohort: list[Client], q: float, rate: float
) -> None:
    alike = [replace(client, weight=1) for client in cohort]
    losses = [0.2 + place for place in range(len(alike))]
    fair = mean_over_all_clients(total(alike, losses, q, 1 / rate))
    names = list(SHAPES)
    start = [np.zeros(SHAPES[name]) for name in names]
    deltas, divisor = [np.zeros_like(value) for value in start], 0.0
    for client, loss in zip(alike, losses, strict=True):
        local = [client.whole(name).astype(np.float64) for name in names]
        moved, own = compute_delta_and_h(start, local, q, 1 / rate, loss)
        deltas = [one + other for one, other in zip(deltas, moved, strict=True)]
        divisor += own
    for name, delta in zip(names, deltas, strict=True):
        assert_allclose(fair[name], -delta / divisor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("mean", [mean_over_all_clients, None])
def test_larger_q_gives_more_weight_to_the_larger_loss(mean: object) -> None:
    satisfied, dissatisfied = Client(3, EVERY_ITEM, 1), Client(3, EVERY_ITEM, 2)
    away = [
        np.abs(
            (mean_over_all_clients(found) if mean else mean_over_touching_clients(found, TABLES))[
                "table"
            ]
            - dissatisfied.whole("table")
        ).max()
        for found in (
            total([satisfied, dissatisfied], [0.5, 2.0], q, 0.0) for q in (0, 0.5, 1, 2, 8)
        )
    ]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 1e-4 * away[0]


def test_fair_sum_is_finite_with_zero_weights_and_zero_losses() -> None:
    sent = updates([Client(2, [0, 1], 1), Client(1, [2], 2)])
    sent = replace(sent, weights=np.array([2.0, 0.0]))
    fair = fair_sum(sent, np.array([0.0, 0.0]), SHAPES, TABLES, NUM_ITEMS, 0.5, 1.0, 10.0)
    assert all(np.isfinite(value).all() for value in mean_over_all_clients(fair).values())


# --- false losses -----------------------------------------------------------------------------


@given(cohorts(least=3), st.floats(10, 1e300), st.floats(0.1, 3), st.floats(0, 2))
def test_loss_above_the_cap_counts_as_the_cap(
    cohort: list[Client], reported: float, q: float, lipschitz: float
) -> None:
    alike = [replace(client, weight=1) for client in cohort]
    honest = [1.0] * (len(alike) - 1)
    uncapped, capped = (total(alike, [*honest, f], q, lipschitz, 10.0) for f in (reported, 10.0))
    for name, mean in mean_over_all_clients(uncapped).items():
        assert_allclose(mean, mean_over_all_clients(capped)[name], rtol=1e-6)


def test_median_of_the_cap_is_weighted() -> None:
    heavy = Client(5, EVERY_ITEM, 1)
    many = [Client(1, EVERY_ITEM, seed) for seed in (2, 3, 4)]
    uncapped = total([heavy, *many], [1.0, 1e30, 1e30, 1e30], 1.0, 0.0, 10.0)
    capped = total([heavy, *many], [1.0, 10.0, 10.0, 10.0], 1.0, 0.0)
    for name, mean in mean_over_all_clients(uncapped).items():
        assert_allclose(mean, mean_over_all_clients(capped)[name], rtol=1e-6)


@pytest.mark.parametrize("loss_cap", [10.0, inf])
def test_client_of_weight_zero_does_not_change_the_result(loss_cap: float) -> None:
    honest = [Client(2, [0, 1], 1), Client(3, [1, 2], 2)]
    sent = updates([*honest, Client(1, [], 3, scale=0.0)])
    sent = replace(sent, weights=np.array([2.0, 3.0, 0.0]))
    losses = np.array([1.0, 2.0, 1e300])
    fair = fair_sum(sent, losses, SHAPES, TABLES, NUM_ITEMS, 2.0, 1.0, loss_cap)
    alone = total(honest, [1.0, 2.0], 2.0, 1.0, loss_cap)
    for name, mean in mean_over_all_clients(alone).items():
        assert_allclose(mean_over_all_clients(fair)[name], mean, rtol=1e-6)
