"""Robust rules against plain loops over whole tables, and under malicious clients."""

from functools import partial
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.krum import multi_krum, num_tolerated
from fedrec_flower.strategies.aggregators.robust import median, norm_bound, trimmed_mean
from fedrec_flower.strategies.base import Aggregation
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, updates
from tests.helpers.plain_rules import (
    COHORTS,
    EVERY_AGGREGATION,
    EVERY_RULE,
    RULES,
    Rule,
    Tensors,
    combined,
    fedavg,
    plain_coordinatewise,
    plain_krum_rules,
    plain_median,
    plain_trimmed,
)


def same(ours: Tensors, theirs: Tensors) -> None:
    assert set(ours) == set(theirs) == set(SHAPES)
    for name, value in ours.items():
        assert value.dtype == np.float32
        assert value.shape == SHAPES[name]
        assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-6)


@EVERY_AGGREGATION
@given(cohort=COHORTS)
def test_median_equals_numpys_over_whole_tables(
    cohort: list[Client], aggregation: Aggregation
) -> None:
    same(
        combined(median, cohort, aggregation),
        plain_coordinatewise(cohort, aggregation, plain_median),
    )


@EVERY_AGGREGATION
@given(cohort=COHORTS)
def test_trimmed_mean_equals_a_plain_loop(cohort: list[Client], aggregation: Aggregation) -> None:
    ours = combined(RULES["trimmed_mean"], cohort, aggregation)
    same(ours, plain_coordinatewise(cohort, aggregation, plain_trimmed))


@EVERY_AGGREGATION
@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "bulyan_recursive"])
@given(cohort=COHORTS)
def test_krum_rules_equal_a_plain_loop(
    cohort: list[Client], name: str, aggregation: Aggregation
) -> None:
    """Bulyan selects once or recursively, as in its paper."""
    same(combined(RULES[name], cohort, aggregation), plain_krum_rules(name, cohort, aggregation))


@EVERY_AGGREGATION
@given(cohort=COHORTS, bound=st.one_of(st.none(), st.floats(0.1, 10)))
def test_norm_bound_averages_scaled_updates(
    cohort: list[Client], bound: float | None, aggregation: Aggregation
) -> None:
    norms = [np.sqrt(sum((c.whole(n) ** 2).sum() for n in SHAPES)) for c in cohort]
    limit = float(np.median(norms)) if bound is None else bound
    scales = [min(1.0, limit / norm) for norm in norms]
    short = [
        Client(c.weight, c.rows, c.seed, scale) for c, scale in zip(cohort, scales, strict=True)
    ]
    same(
        combined(partial(norm_bound, bound=bound), cohort, aggregation), fedavg(short, aggregation)
    )


@EVERY_AGGREGATION
@pytest.mark.parametrize(
    "rule",
    [
        partial(trimmed_mean, trim=0.0),
        partial(multi_krum, malicious_share=0.0),
        partial(norm_bound, bound=1e9),
    ],
    ids=["no trimming", "no malicious clients", "no bound"],
)
@given(cohort=COHORTS)
def test_rule_without_exclusion_equals_fedavg(
    cohort: list[Client], rule: Rule, aggregation: Aggregation
) -> None:
    same(combined(rule, cohort, aggregation), fedavg(cohort, aggregation))


@EVERY_AGGREGATION
@EVERY_RULE
@given(cohort=COHORTS, random=st.randoms())
def test_order_of_the_clients_does_not_change_the_result(
    cohort: list[Client], random: Random, name: str, aggregation: Aggregation
) -> None:
    order = np.array(random.sample(range(len(cohort)), len(cohort)))
    given_ = updates(cohort)
    same(
        RULES[name](given_.select(order, TABLES), SHAPES, TABLES, aggregation),
        RULES[name](given_, SHAPES, TABLES, aggregation),
    )


ALL_ITEMS = list(range(NUM_ITEMS))


@EVERY_AGGREGATION
@pytest.mark.parametrize("name", sorted(set(RULES) - {"norm_bound"}))
@given(
    seeds=st.sets(st.integers(0, 2**32), min_size=11, max_size=11).map(sorted),
    size=st.sampled_from([1e3, -1e9, 1e30]),
)
def test_tolerated_malicious_clients_cannot_leave_the_honest_range(
    seeds: list[int], size: float, name: str, aggregation: Aggregation
) -> None:
    # 2 of 11: Bulyan needs 4 * 2 + 3 clients.
    benign = [Client(5, ALL_ITEMS, seed) for seed in seeds[2:]]
    malicious = [Client(50, ALL_ITEMS, seed, size) for seed in seeds[:2]]
    result = combined(RULES[name], [*malicious, *benign], aggregation)
    for tensor, value in result.items():
        values = np.array([client.whole(tensor) for client in benign])
        assert (value >= values.min(axis=0) - 1e-5).all()
        assert (value <= values.max(axis=0) + 1e-5).all()


@EVERY_AGGREGATION
def test_one_malicious_client_decides_the_plain_mean(aggregation: Aggregation) -> None:
    cohort = [Client(5, ALL_ITEMS, seed) for seed in range(10)]
    moved = fedavg([*cohort, Client(5, ALL_ITEMS, 10, 1e6)], aggregation)
    assert np.abs(moved["table"]).min() > 10


@EVERY_AGGREGATION
@given(size=st.sampled_from([1e3, 1e9, 1e18]))
def test_norm_bound_limits_a_malicious_client_to_its_share(
    size: float, aggregation: Aggregation
) -> None:
    cohort = [Client(5, ALL_ITEMS, seed) for seed in range(9)]
    bounded = partial(norm_bound, bound=0.5)
    benign = combined(bounded, [*cohort, Client(5, ALL_ITEMS, 10, 0.0)], aggregation)
    attacked = combined(bounded, [*cohort, Client(5, ALL_ITEMS, 10, size)], aggregation)
    moved = sum(float(((attacked[n] - benign[n]) ** 2).sum()) for n in SHAPES) ** 0.5
    assert moved == pytest.approx(0.5 / 10, rel=1e-4)


@EVERY_AGGREGATION
@EVERY_RULE
def test_untouched_rows_stay(name: str, aggregation: Aggregation) -> None:
    result = combined(RULES[name], [Client(3, [1, 4], s) for s in range(3)], aggregation)
    assert_array_equal(np.flatnonzero(result["table"].any(axis=1)), [1, 4])


@EVERY_RULE
def test_aggregations_are_equal_if_all_clients_touch_all_rows(name: str) -> None:
    cohort = [Client(seed + 1, ALL_ITEMS, seed) for seed in range(9)]
    given_ = updates(cohort)
    dense = given_.tensors["dense"].reshape(9, 4)
    # One item row, so that a selection by rows is a selection by whole updates.
    one = Updates(
        given_.clients, given_.weights, np.arange(10), np.zeros(9, np.int64), {"table": dense}
    )
    shapes = {"table": (1, 4)}
    every, touching = (
        RULES[name](one, shapes, ["table"], how) for how in ("all_clients", "touched_clients")
    )
    assert_allclose(every["table"], touching["table"], rtol=1e-6)


@EVERY_AGGREGATION
@EVERY_RULE
def test_update_of_a_single_client_is_unchanged(name: str, aggregation: Aggregation) -> None:
    alone = Client(7, [0, 2], 3)
    result = combined(RULES[name], [alone], aggregation)
    for tensor, value in result.items():
        assert_allclose(value, alone.whole(tensor), rtol=1e-6)


def test_num_tolerated_is_the_share_up_to_the_limit_of_the_rule() -> None:
    assert num_tolerated(100, 0.29, 2) == 29
    assert num_tolerated(10, 0.2, 4) == (10 - 3) // 4
    assert num_tolerated(2, 0.4, 2) == 0
