"""Under secure aggregation nodes may fall silent: the sum is of those that stayed, or nothing."""

from typing import TYPE_CHECKING

import numpy as np
import pytest
from flwr.app import Message
from numpy.testing import assert_allclose

from fedrec_flower.core.errors import TrainingError
from tests.helpers.faulty_runs import failing
from tests.helpers.secure_runs import NODES, SECURE, falling_silent, stage_of, stages, without

if TYPE_CHECKING:
    from tests.helpers.federations import Federate


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "unmask"])
def test_the_sum_is_that_of_the_nodes_that_stayed(federate: "Federate", stage: str) -> None:
    short = (*NODES, "num_rounds=1")  # a node that trained before it fell silent has moved
    one = federate(*short, meddle=without({2, 5} if stage != "unmask" else set()))
    other = federate(*short, *SECURE, meddle=falling_silent(stage, {2, 5}))
    for name, tensor in one.shared.items():
        assert_allclose(other.shared[name], tensor, atol=1e-5)
    assert other.watcher.replied == one.watcher.replied
    assert other.watcher.lost == one.watcher.lost


def test_below_the_threshold_nothing_moves_and_the_round_is_tried_again(
    federate: "Federate",
) -> None:
    words = (*NODES, *SECURE, "num_rounds=1")
    for stage in ("advertise", "share", "mask"):
        ran = federate(*words, meddle=falling_silent(stage, {1, 2, 3}, rounds=1))
        assert ran.watcher.replied == {1: 18}
        assert ran.outcome.failures.keys() <= {"silent", "too_few_nodes"}
        assert sum(ran.outcome.failures.values()) == 18
        with pytest.raises(TrainingError, match=r"fewer than 50% .* too_few_nodes"):
            federate(*words, meddle=falling_silent(stage, {1, 2, 3}))


def test_whoever_is_left_without_neighbours_is_lost_too(federate: "Federate") -> None:
    """On a circle of nodes with two neighbours each, the neighbours of a gap cannot go on."""
    few = ("secure_aggregation.num_neighbours=2", "secure_aggregation.min_nodes=3")
    gap = falling_silent("advertise", {1}, rounds=1)
    ran = federate(*NODES, *SECURE, *few, "num_rounds=1", meddle=gap)
    # Every one of three must stay, so the whole circle comes undone, and is tried again.
    assert ran.watcher.replied == {1: 18}
    assert sum(ran.outcome.failures.values()) == 18


def test_under_noise_a_round_that_aborts_moves_by_noise_alone(federate: "Federate") -> None:
    private = (
        *("privacy=central_dp", "privacy.target_epsilon=null", "privacy.noise_multiplier=0.5"),
        *("strategy.aggregation=all_clients", "min_completion=0", "privacy.sampling=fixed"),
    )
    aborts = falling_silent("mask", {1, 2, 3})
    ran = federate(*private, *NODES, *SECURE, "num_rounds=1", meddle=aborts)
    assert sum(ran.watcher.lost[1].values()) == 18  # all there were
    assert all(np.isfinite(value).all() for value in ran.shared.values())


@pytest.mark.parametrize("stage", ["advertise", "share", "mask"])
def test_a_node_that_talks_nonsense_has_dropped_out(
    federate: "Federate", stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def garbled(asked: list[Message], replies: list[Message]) -> list[Message]:
        if stage_of(asked) == stage:
            del replies[0].content["said"]
        return replies

    ran = federate(*NODES, *SECURE, "num_rounds=1", meddle=garbled)
    assert ran.watcher.lost[1] == {"malformed": 18 - ran.watcher.replied[1]}
    assert 0 < ran.watcher.replied[1] < 18
    assert "malformed: it lacks 'said'" in caplog.text


@pytest.mark.parametrize("stage", ["advertise", "share", "mask"])
def test_where_every_node_fails_the_round_is_tried_again_and_then_one_says_why(
    federate: "Federate", stage: str
) -> None:
    words = (*NODES, *SECURE, "num_rounds=1", "max_retries=1")
    ran = federate(*words, meddle=failing(f"train.masked/{stage}", attempts=1))
    assert ran.watcher.lost == {1: {"a_node_failed": 18}}
    assert ran.watcher.replied == {1: 18}
    with pytest.raises(TrainingError, match=r"^a node failed: disk is full$"):
        federate(*words, meddle=failing(f"train.masked/{stage}"))


def test_whoever_is_lost_on_a_node_is_told_by_kind_alone(federate: "Federate") -> None:
    ran = federate(*NODES, *SECURE, "faults=custom", "faults.huge=0.3", "num_rounds=1")
    lost = [
        reason
        for stage, reply in stages(ran)
        if stage == "mask"
        for reason in reply.content.config_records["said"]["reasons"]  # type: ignore[union-attr]  # a list
    ]
    assert "huge" in lost
    assert not any(":" in str(reason) for reason in lost)


def test_what_was_clipped_is_told(federate: "Federate", caplog: pytest.LogCaptureFixture) -> None:
    federate(*NODES, *SECURE, "num_rounds=1", "secure_aggregation.clip_range=1e-4")
    assert "beyond secure_aggregation.clip_range=0.0001 and were clipped" in caplog.text
