"""Rounds that too few reply to are tried again, and then the run says why it fails."""

import csv
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from tests.helpers.faulty_runs import CLIENTS, assert_counts_add_up, failing

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federate


def test_a_round_is_tried_again_with_another_cohort(federate: "Federate") -> None:
    words = ("clients_per_round=8", "min_completion=0.7", "max_retries=30", "faults=custom")
    ran = federate(*words, "faults.dropout=0.5")
    cohorts: dict[tuple[int, int], list[int]] = {}
    for message in ran.tap.asked:
        if message.metadata.message_type == "train":
            about: Any = message.content.config_records["config"]
            cohorts[about["round"], about["attempt"]] = list(about["clients"])
    again = [cohort for (_, attempt), cohort in cohorts.items() if attempt]
    assert again
    assert len({tuple(cohort) for cohort in cohorts.values()}) == len(cohorts)
    assert sorted(ran.watcher.replied) == [1, 2, 3]
    assert min(ran.watcher.replied.values()) >= 0.7 * 8
    assert_counts_add_up(ran)


def test_a_round_tells_what_all_its_attempts_lost_and_how_many_they_were(
    federate: "Federate",
) -> None:
    words = ("clients_per_round=8", "min_completion=0.7", "max_retries=30", "faults=custom")
    ran = federate(*words, "faults.dropout=0.5")
    asked: Counter[int] = Counter()
    gone: Counter[int] = Counter()
    for message, reply in zip(ran.tap.asked, ran.tap.replies, strict=True):
        if message.metadata.message_type == "train":
            round_ = int(message.metadata.group_id)
            lost: Any = reply.content.config_records["lost"]
            asked[round_] += 1  # one node: a message an attempt
            gone[round_] += len(lost["clients"])
    assert max(asked.values()) > 1
    for round_, more in ran.watcher.more.items():
        assert more == ({"attempts": asked[round_]} if asked[round_] > 1 else {})
        assert sum(ran.watcher.lost[round_].values()) == gone[round_]
    assert sum(ran.outcome.failures.values()) == gone.total()


def test_a_round_in_which_every_node_fails_is_tried_again(
    federate: "Federate", caplog: pytest.LogCaptureFixture
) -> None:
    ran = federate("federation.num_nodes=3", "max_retries=2", meddle=failing("train", attempts=2))
    assert ran.watcher.more[1] == {"attempts": 3}
    assert ran.watcher.lost == {1: {"a_node_failed": 2 * CLIENTS}, 2: {}, 3: {}}
    assert_counts_add_up(ran)
    assert caplog.text.count("disk is full") == 1


@pytest.mark.parametrize(("min_completion", "attempts"), [(0.5, 3), (0.0, 1)])
def test_nodes_that_fail_once_too_often_end_the_run_in_their_own_words_said_once(
    federate: "Federate",
    caplog: pytest.LogCaptureFixture,
    min_completion: float,
    attempts: int,  # privacy accounts for one cohort a round, and allows any number of replies
) -> None:
    seen = []

    def fail(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        seen.append(asked[0].metadata.message_type)
        return failing("train")(asked, replies)

    words = ("federation.num_nodes=3", "max_retries=2", f"min_completion={min_completion}")
    with pytest.raises(TrainingError, match=r"^a node failed: disk is full$"):
        federate(*words, meddle=fail)
    assert seen.count("train") == attempts
    assert "disk is full" not in caplog.text


def test_too_few_for_too_long_is_one_sentence_and_the_last_good_state(tmp_path: Path) -> None:
    words = ["experiment=smoke", f"dataset.cache_dir={tmp_path / 'cache'}", "evaluation.every=1"]
    words += ["faults=custom", "faults.dropout=0.3", "clients_per_round=10", "num_rounds=200"]
    words += ["min_completion=0.6", "max_retries=0"]
    folder = RunFolder.create(tmp_path / "run")
    with pytest.raises(TrainingError) as caught:
        run(compose(words)[0], folder)
    sentence = str(caught.value)
    failed = int(sentence.removeprefix("round ").partition(":")[0])
    assert "fewer than 60% of the cohort replied soundly, 1 times over" in sentence
    assert "dropped_out" in sentence
    assert failed > 1
    summary = json.loads((folder.path / "summary.json").read_text())
    assert (summary["status"], summary["error"]) == ("failed", sentence)
    with (folder.path / "rounds.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert max(int(row["round"]) for row in rows) == failed - 1
    counted = [row for row in rows if row["metric"] == "lost/dropped_out"]
    assert counted
    for row in counted:
        assert row["phase"] == "train"
        assert float(row["value"]) + int(row["num_clients"]) == 10


@pytest.mark.parametrize("min_completion", [0.2, 0.5])  # with retries, too
def test_a_completed_run_says_what_it_lost(tmp_path: Path, min_completion: float) -> None:
    words = ["experiment=smoke", f"dataset.cache_dir={tmp_path / 'cache'}", "faults=mixed"]
    words += ["faults.deadline=30.0", f"min_completion={min_completion}", "max_retries=30"]
    folder = RunFolder.create(tmp_path / "run")
    summary = run(compose(words)[0], folder)
    with (folder.path / "rounds.csv").open() as file:
        every = list(csv.DictReader(file))
    assert ("attempts" in {row["metric"] for row in every}) == (min_completion > 0.2)
    rows = [row for row in every if row["metric"].startswith("lost/")]
    totals: dict[str, float] = {}
    for row in rows:
        kind = row["metric"].removeprefix("lost/")
        totals[kind] = totals.get(kind, 0) + float(row["value"])
    assert set(totals) == {"dropped_out", "late", "not_finite"}
    assert summary["lost_replies"] == totals
