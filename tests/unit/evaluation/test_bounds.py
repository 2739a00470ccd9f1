"""The bounds accept exactly the sums that an honest evaluation can have."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedrec_flower.core.failures import FailureKind
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.base import Evaluator
from fedrec_flower.evaluation.metric_sums import Bounds, MetricSums
from fedrec_flower.evaluation.ranking import RankingEvaluation
from fedrec_flower.evaluation.rating import RatingEvaluation

if TYPE_CHECKING:
    from tests.conftest import PrepareSmall

RANKING = RankingEvaluation(["hr@10", "auc"], 5, 10, 1, None, "hr@10", "train")
RATING = RatingEvaluation((1.0, 5.0), 10, 1, None, select_by="rmse")

NUM_VALUES = np.array([2, 0, 30])
BOUNDS = Bounds(
    frozenset({"hr@10"}),
    (0.0, 1.0),
    num_users=np.array([2, 1, 40]),
    num_values={Part.VALIDATION: NUM_VALUES, Part.TEST: NUM_VALUES},
)


def sums(total: float, squares: float, count: float) -> dict[Part, MetricSums]:
    """Sums of zero on validation, and these sums on test."""
    found = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    found[Part.VALIDATION].put("hr@10", 0.0, 0.0, 0.0)
    found[Part.TEST].put("hr@10", total, squares, count)
    return found


def failure_kind(found: dict[Part, MetricSums], clients: list[int]) -> FailureKind | None:
    failure = BOUNDS.violation(found, clients)
    return failure.kind if failure else None


@given(st.lists(st.floats(0, 1) | st.just(float("nan")), max_size=32))
def test_bounds_accept_the_sums_of_an_honest_node(values: list[float]) -> None:
    found = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    for of_part in found.values():
        of_part.add({"hr@10": np.array(values, np.float64)})
    assert BOUNDS.violation(found, [0, 2]) is None


@given(st.lists(st.floats(0, 1e100), max_size=32))
def test_bounds_of_rating_errors_have_no_upper_limit(values: list[float]) -> None:
    found = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    for of_part in found.values():
        of_part.add({name: np.array(values, np.float64) for name in RATING.names})
    most = {part: np.array([32]) for part in found}
    bounds = Bounds(frozenset(RATING.names), RATING.value_range, np.array([1]), most)
    assert bounds.violation(found, [0]) is None


NAN, INF = float("nan"), float("inf")
LIES = {
    "NaN": ((NAN, 1.0, 2.0), "not_finite"),
    "infinite squares": ((1.0, INF, 2.0), "not_finite"),
    "an infinite count": ((1.0, 1.0, INF), "not_finite"),
    "fewer than none": ((0.0, 0.0, -1.0), "wrong_count"),
    "half a value": ((0.2, 0.1, 0.5), "wrong_count"),
    "more than there are": ((1.0, 1.0, 33.0), "wrong_count"),
    "a mean above all": ((2.1, 2.1, 2.0), "out_of_range"),
    "a mean below all": ((-0.1, 0.1, 2.0), "out_of_range"),
    "a huge mean": ((1e300, 1e300, 2.0), "out_of_range"),
    "squares below any mean's": ((1.0, 0.4, 2.0), "out_of_range"),
    "negative squares": ((0.0, -0.1, 2.0), "out_of_range"),
    "huge squares": ((1.0, 1e300, 2.0), "out_of_range"),
    "a sum of nothing": ((0.5, 0.0, 0.0), "out_of_range"),
    "squares of nothing": ((0.0, 0.5, 0.0), "out_of_range"),
}


@pytest.mark.parametrize("name", LIES)
def test_bounds_reject_impossible_sums(name: str) -> None:
    values, kind = LIES[name]
    assert failure_kind(sums(*values), [0, 2]) == kind


def test_bounds_without_clients_accept_no_metric() -> None:
    nothing = {part: MetricSums() for part in (Part.VALIDATION, Part.TEST)}
    assert BOUNDS.violation(nothing, []) is None
    assert failure_kind(nothing, [0]) == FailureKind.WRONG_NAMES
    assert failure_kind(sums(0, 0, 0), []) == FailureKind.WRONG_NAMES


@pytest.mark.parametrize("evaluator", [RANKING, RATING])
def test_bounds_count_the_values_that_an_evaluator_computes(
    prepare_small: "PrepareSmall", evaluator: Evaluator
) -> None:
    data = prepare_small([0, 0, 0, 1, 2, 2, 2, 2, 3, 3, 4, 4])  # leave-one-out: one a user
    bounds = Bounds.of(evaluator, data)
    assert bounds.num_users.tolist() == [3, 1, 4, 2, 2]
    assert [bounds.num_values[part].tolist() for part in bounds.num_values] == [[3, 1, 4, 2, 2]] * 2
    assert bounds.names == set(evaluator.names)


def test_max_values_is_one_per_user_for_ranking_and_one_per_rating_for_ratings(
    prepare_small: "PrepareSmall",
) -> None:
    train = prepare_small().part(Part.TRAIN)  # as if it were held out
    lengths = np.diff(train.offsets)
    assert lengths.max() > 1
    assert RANKING.max_values(train).tolist() == np.minimum(lengths, 1).tolist()
    assert RATING.max_values(train).tolist() == lengths.tolist()
