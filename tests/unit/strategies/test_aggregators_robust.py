"""Robust rules against plain loops over whole tables, and what a few liars can do to them."""

from functools import partial
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.krum import multi_krum, num_tolerated
from fedrec_flower.strategies.aggregators.robust import PerRow, median, norm_bound, trimmed_mean
from tests.helpers.cohorts import NUM_ITEMS, SHAPES, TABLES, Client, updates
from tests.helpers.plain_rules import (
    COHORTS,
    EVERY_HOW,
    EVERY_RULE,
    RULES,
    Rule,
    Tensors,
    combined,
    fedavg,
    plain_coordinatewise,
    plain_elections,
    plain_median,
    plain_trimmed,
)


def same(ours: Tensors, theirs: Tensors) -> None:
    assert set(ours) == set(theirs) == set(SHAPES)
    for name, value in ours.items():
        assert value.dtype == np.float32
        assert value.shape == SHAPES[name]
        assert_allclose(value, theirs[name], rtol=1e-5, atol=1e-6)


@EVERY_HOW
@given(cohort=COHORTS)
def test_the_median_is_numpys_over_whole_tables(cohort: list[Client], per_row: PerRow) -> None:
    same(combined(median, cohort, per_row), plain_coordinatewise(cohort, per_row, plain_median))


@EVERY_HOW
@given(cohort=COHORTS)
def test_the_trimmed_mean_is_that_of_a_plain_loop(cohort: list[Client], per_row: PerRow) -> None:
    ours = combined(RULES["trimmed_mean"], cohort, per_row)
    same(ours, plain_coordinatewise(cohort, per_row, plain_trimmed))


@EVERY_HOW
@pytest.mark.parametrize("name", ["krum", "multi_krum", "bulyan", "bulyan_recursive"])
@given(cohort=COHORTS)
def test_an_election_is_that_of_a_plain_loop(
    cohort: list[Client], name: str, per_row: PerRow
) -> None:
    """Item 17: elections once and recursive, as in the paper of Bulyan."""
    same(combined(RULES[name], cohort, per_row), plain_elections(name, cohort, per_row))


@EVERY_HOW
@given(cohort=COHORTS, bound=st.one_of(st.none(), st.floats(0.1, 10)))
def test_bounded_norms_average_updates_cut_to_length(
    cohort: list[Client], bound: float | None, per_row: PerRow
) -> None:
    norms = [np.sqrt(sum((c.whole(n) ** 2).sum() for n in SHAPES)) for c in cohort]
    limit = float(np.median(norms)) if bound is None else bound
    scales = [min(1.0, limit / norm) for norm in norms]
    short = [
        Client(c.weight, c.rows, c.seed, scale) for c, scale in zip(cohort, scales, strict=True)
    ]
    same(combined(partial(norm_bound, bound=bound), cohort, per_row), fedavg(short, per_row))


@EVERY_HOW
@pytest.mark.parametrize(
    "rule",
    [
        partial(trimmed_mean, trim=0.0),
        partial(multi_krum, malicious_share=0.0),
        partial(norm_bound, bound=1e9),
    ],
    ids=["nothing trimmed", "no liars", "no bound"],
)
@given(cohort=COHORTS)
def test_what_leaves_nobody_out_is_fedavg(
    cohort: list[Client], rule: Rule, per_row: PerRow
) -> None:
    same(combined(rule, cohort, per_row), fedavg(cohort, per_row))


@EVERY_HOW
@EVERY_RULE
@given(cohort=COHORTS, random=st.randoms())
def test_the_order_of_the_clients_does_not_matter(
    cohort: list[Client], random: Random, name: str, per_row: PerRow
) -> None:
    order = np.array(random.sample(range(len(cohort)), len(cohort)))
    given_ = updates(cohort)
    same(
        RULES[name](given_.select(order, TABLES), SHAPES, TABLES, per_row),
        RULES[name](given_, SHAPES, TABLES, per_row),
    )


EVERYWHERE = list(range(NUM_ITEMS))


@EVERY_HOW
@pytest.mark.parametrize("name", sorted(set(RULES) - {"norm_bound"}))
@given(
    seeds=st.sets(st.integers(0, 2**32), min_size=11, max_size=11).map(sorted),
    size=st.sampled_from([1e3, -1e9, 1e30]),
)
def test_a_tolerated_number_of_huge_liars_cannot_leave_the_honest_range(
    seeds: list[int], size: float, name: str, per_row: PerRow
) -> None:
    # 2 of 11: what bulyan tolerates, 4 * 2 + 3.
    honest = [Client(5, EVERYWHERE, seed) for seed in seeds[2:]]
    liars = [Client(50, EVERYWHERE, seed, size) for seed in seeds[:2]]
    result = combined(RULES[name], [*liars, *honest], per_row)
    for tensor, value in result.items():
        said = np.array([client.whole(tensor) for client in honest])
        assert (value >= said.min(axis=0) - 1e-5).all()
        assert (value <= said.max(axis=0) + 1e-5).all()


@EVERY_HOW
def test_without_a_rule_one_huge_liar_decides(per_row: PerRow) -> None:
    cohort = [Client(5, EVERYWHERE, seed) for seed in range(10)]
    moved = fedavg([*cohort, Client(5, EVERYWHERE, 10, 1e6)], per_row)
    assert np.abs(moved["table"]).min() > 10


@EVERY_HOW
@given(size=st.sampled_from([1e3, 1e9, 1e18]))
def test_under_a_bound_a_liar_moves_no_further_than_its_share_of_it(
    size: float, per_row: PerRow
) -> None:
    cohort = [Client(5, EVERYWHERE, seed) for seed in range(9)]
    bounded = partial(norm_bound, bound=0.5)
    honest = combined(bounded, [*cohort, Client(5, EVERYWHERE, 10, 0.0)], per_row)
    attacked = combined(bounded, [*cohort, Client(5, EVERYWHERE, 10, size)], per_row)
    moved = sum(float(((attacked[n] - honest[n]) ** 2).sum()) for n in SHAPES) ** 0.5
    assert moved == pytest.approx(0.5 / 10, rel=1e-4)


@EVERY_HOW
@EVERY_RULE
def test_rows_that_nobody_touched_stay(name: str, per_row: PerRow) -> None:
    result = combined(RULES[name], [Client(3, [1, 4], s) for s in range(3)], per_row)
    assert_array_equal(np.flatnonzero(result["table"].any(axis=1)), [1, 4])


@EVERY_RULE
def test_where_everybody_touches_everything_touching_clients_are_all_clients(name: str) -> None:
    cohort = [Client(seed + 1, EVERYWHERE, seed) for seed in range(9)]
    given_ = updates(cohort)
    dense = given_.tensors["dense"].reshape(9, 4)
    # One item row, so that an election by rows is one by whole updates.
    one = Updates(
        given_.clients, given_.weights, np.arange(10), np.zeros(9, np.int64), {"table": dense}
    )
    shapes = {"table": (1, 4)}
    every, touching = (
        RULES[name](one, shapes, ["table"], how) for how in ("all_clients", "touched_clients")
    )
    assert_allclose(every["table"], touching["table"], rtol=1e-6)


@EVERY_HOW
@EVERY_RULE
def test_a_single_client_is_heard_unchanged(name: str, per_row: PerRow) -> None:
    alone = Client(7, [0, 2], 3)
    result = combined(RULES[name], [alone], per_row)
    for tensor, value in result.items():
        assert_allclose(value, alone.whole(tensor), rtol=1e-6)


def test_liars_are_counted_by_share_and_never_more_than_can_be_outvoted() -> None:
    assert num_tolerated(100, 0.29, 2) == 29
    assert num_tolerated(10, 0.2, 4) == (10 - 3) // 4
    assert num_tolerated(2, 0.4, 2) == 0
