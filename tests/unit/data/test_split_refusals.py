"""What no split can do is refused in one sentence."""

import pytest

from fedrec_flower.core.errors import ConfigError, DataError
from fedrec_flower.data.splits.base import Splitter
from fedrec_flower.data.splits.leave_one_out import LeaveLastFraction, LeaveOneOut
from fedrec_flower.data.splits.random import Random
from fedrec_flower.data.splits.temporal import Temporal
from tests.helpers.splitting import (
    LAST,
    ONE_OUT,
    OVERALL,
    PER_USER,
    TEMPORAL,
    history,
    interactions,
)


@pytest.mark.parametrize("splitter", [ONE_OUT, LAST, TEMPORAL])
def test_a_split_by_time_without_times_names_the_split_that_needs_none(splitter: Splitter) -> None:
    data = interactions([0, 0, 0, 0], [0, 1, 2, 3], None)
    with pytest.raises(DataError, match="use split=random"):
        splitter.split(data, seed=0)
    PER_USER.split(data, seed=0)


@pytest.mark.parametrize("splitter", [ONE_OUT, LAST, PER_USER])
def test_too_short_a_history_names_the_user_its_length_and_the_mend(splitter: Splitter) -> None:
    data = interactions([0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 1, 0, 1, 2], [0] * 8)
    message = r"user 10 has 2 interactions .* needs 3 \(1 of 3 .*dataset\.min_interactions=3"
    with pytest.raises(DataError, match=message):
        splitter.split(data, seed=0)


@pytest.mark.parametrize("splitter", [TEMPORAL, OVERALL])
def test_too_few_interactions_in_all_are_refused(splitter: Splitter) -> None:
    with pytest.raises(DataError, match="has 2 interactions and this split needs 3"):
        splitter.split(history(1, 2), seed=0)


@pytest.mark.parametrize("times", [[5] * 10, [1, 2, 3] + [5] * 7])
def test_a_temporal_split_with_an_empty_part_is_refused(times: list[int]) -> None:
    with pytest.raises(DataError, match="leave a part of the temporal split empty"):
        TEMPORAL.split(history(*times), seed=0)


@pytest.mark.parametrize(
    ("validation", "test"),
    [(-0.1, 0.2), (0.1, 0), (0.5, 0.5), (0, 1), (0.1, float("nan")), (float("nan"), 0.1)],
)
def test_impossible_fractions_are_refused(validation: float, test: float) -> None:
    message = f"split.validation_fraction={validation} and split.test_fraction={test} are"
    for make in (
        lambda: LeaveLastFraction(validation, test, ties="hash", negatives="honest"),
        lambda: Temporal(validation, test, negatives="honest"),
        lambda: Random("user", validation, test, negatives="honest"),
    ):
        with pytest.raises(ConfigError, match=message):
            make()


@pytest.mark.parametrize("count", [-1, 2])
def test_leave_one_out_holds_out_one_for_validation_or_none(count: int) -> None:
    with pytest.raises(ConfigError, match=rf"num_validation={count} is impossible"):
        LeaveOneOut(count, ties="hash", negatives="honest")
