"""Evaluations with failing, silent or malicious nodes, which must not select the round."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Error, Message

from fedrec_flower.core.errors import TrainingError
from fedrec_flower.data.interactions import Part
from tests.helpers.faulty_runs import CLIENTS

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated, Meddle

NODES = ("federation.num_nodes=3", "evaluation.every=1")
BAD = 1  # the faulty node
OTHERS = CLIENTS - CLIENTS // 3

Corrupt = Callable[[Message, Message], Message | None]  # of a request and its reply


def befalls(spoil: Corrupt, when: Callable[[Any], bool]) -> "Meddle":
    """The evaluations of one node are faulty.

    Args:
        spoil: gives what arrives instead, or nothing.
        when: of the request's configuration; the last evaluation has a `note`.
    """

    def meddle(asked: list[Message], replies: list[Message]) -> list[Message]:
        if asked[0].metadata.message_type != "evaluate":
            return replies
        arrived = []
        for request, reply in zip(asked, replies, strict=True):
            hit = request.metadata.dst_node_id == BAD
            hit = hit and when(request.content.config_records["config"])
            arrived.append(spoil(request, reply) if hit else reply)
        return [reply for reply in arrived if reply is not None]

    return meddle


def before_the_last(config: Any) -> bool:
    return not config["note"]


def silence(_: Message, __: Message) -> Message | None:
    return None


def failure(request: Message, _: Message) -> Message:
    return Message(Error(0, "<class 'X'>:<'Message: disk is full'>"), reply_to=request)


def saying(value: float) -> Corrupt:
    """Replace one sum of the selecting metric by a false one."""

    def spoil(_: Message, reply: Message) -> Message:
        metrics: Any = reply.content.metric_records["metrics"]
        if (name := "validation/ndcg@10") in metrics:
            metrics[name] = [value, *metrics[name][1:]]
        return reply

    return spoil


NAN, INF = float("nan"), float("inf")
SPOILT = {
    "silence": (silence, "silent: its node did not answer in time"),
    "failure": (failure, "a_node_failed: disk is full"),
    "NaN": (saying(NAN), "not_finite: validation ndcg@10"),
    "infinity": (saying(INF), "not_finite: validation ndcg@10"),
    "a billion": (saying(1e9), "out_of_range: validation ndcg@10"),
    "less than nothing": (saying(-1.0), "out_of_range: validation ndcg@10"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_invalid_evaluation_is_left_out_and_the_others_select(
    federate: "Federate", name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, reason = SPOILT[name]
    clean = federate(*NODES)
    caplog.clear()
    ran = federate(*NODES, meddle=befalls(spoil, before_the_last))
    assert ran.watcher.num_evaluated == dict.fromkeys(range(4), OTHERS)
    assert ran.watcher.losses == clean.watcher.losses
    scores = {r: m[Part.VALIDATION]["ndcg@10"] for r, m in ran.watcher.metrics.items()}
    assert ran.outcome.selected.round == max(scores, key=lambda r: (scores[r], -r))
    assert ran.outcome.selected.num_clients == CLIENTS  # the last evaluation covers all clients
    warned = [m for m in caplog.messages if m.startswith("evaluation of round 2: left out client")]
    assert len(warned) == 1
    assert f"0, 1, 2, 3, 4 and 3 more: {reason}" in warned[0]
    assert ran.outcome.failures == {}  # no training reply failed


def test_duplicate_evaluation_counts_once(federate: "Federate") -> None:
    def repeat(asked: list[Message], replies: list[Message]) -> list[Message]:
        return replies * 2 if asked[0].metadata.message_type == "evaluate" else replies

    once, twice = federate(*NODES), federate(*NODES, meddle=repeat)
    assert twice.metric_table() == once.metric_table()
    assert twice.watcher.num_evaluated == once.watcher.num_evaluated
    assert twice.outcome.selected.facts() == once.outcome.selected.facts()


def test_constant_false_metric_does_not_prevent_early_stopping(federate: "Federate") -> None:
    words = (*NODES, "patience=2", "num_rounds=30", "strategy.server_learning_rate=0.0")
    honest = federate(*words)
    lied_to = federate(*words, meddle=befalls(saying(NAN), before_the_last))
    assert honest.outcome.stopped_at is not None
    assert lied_to.outcome.stopped_at is not None


@pytest.mark.parametrize(
    ("words", "spoil", "sentence"),
    [
        (
            ("min_completion=0.9",),
            silence,
            r"^round 0: only 16 of 24 clients were evaluated soundly \(8 silent\): mend the "
            r"clients, or lower min_completion=0\.9$",
        ),
        (("min_completion=0.9",), failure, r"^a node failed: disk is full$"),
        (("federation.num_nodes=1",), failure, r"^a node failed: disk is full$"),
        (("federation.num_nodes=1", "min_completion=0.0"), silence, r"^round 0: only 0 of 24"),
    ],
)
def test_too_few_valid_evaluations_end_the_run_with_one_sentence(
    federate: "Federate", words: tuple[str, ...], spoil: Corrupt, sentence: str
) -> None:
    with pytest.raises(TrainingError, match=sentence):
        federate(*NODES, *words, meddle=befalls(spoil, before_the_last))


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (silence, r"^only 2 of 3 nodes answered in time$"),
        (failure, r"^a node failed: disk is full$"),
        (
            saying(1e9),
            r"^round \d cannot be evaluated on every client: out_of_range: validation ndcg@10",
        ),
    ],
)
def test_last_evaluation_covers_all_clients_or_fails(
    federate: "Federate", spoil: Corrupt, sentence: str
) -> None:
    with pytest.raises(TrainingError, match=sentence):
        federate(*NODES, meddle=befalls(spoil, lambda config: config["note"]))


# --- restoring a round that a node missed -----------------------------------------------------


def asked_again(ran: "Federated") -> dict[int, list[int]]:
    """The nodes that were asked to store a snapshot and to evaluate no client, by round."""
    found: dict[int, list[int]] = {}
    for message in ran.tap.asked:
        config: Any = message.content.config_records["config"]
        if message.metadata.message_type == "evaluate" and not config["clients"]:
            found.setdefault(config["round"], []).append(message.metadata.dst_node_id)
    return found


def test_node_that_missed_the_selected_round_is_asked_for_its_snapshot_again(
    federate: "Federate",
) -> None:
    scoring = befalls(failure, lambda config: bool(config["clients"]) and not config["note"])
    ran = federate(*NODES, meddle=scoring)
    scores = {r: m[Part.VALIDATION]["ndcg@10"] for r, m in ran.watcher.metrics.items()}
    best = [r for r in scores if all(scores[r] > scores[before] for before in range(r))]
    # A checkpoint, here after the last round, also needs the snapshot of every node.
    assert asked_again(ran) == {round_: [BAD] for round_ in sorted({*best, 3})}
    assert len(ran.watcher.checkpoints) == 1


@pytest.mark.parametrize("every", [1, 2])
def test_checkpoint_without_the_snapshots_of_all_nodes_is_not_written(
    federate: "Federate", every: int, caplog: pytest.LogCaptureFixture
) -> None:
    words = ("federation.num_nodes=3", f"evaluation.every={every}", "checkpoint_every=1")
    missing = befalls(silence, lambda config: config["round"] in (1, 2) and not config["note"])
    ran = federate(*words, meddle=missing)
    assert [checkpoint.round for checkpoint in ran.watcher.checkpoints] == [3]
    warned = "no checkpoint, for 1 nodes did not keep their clients' parameters"
    assert [m for m in caplog.messages if warned in m] == [f"round {r}: {warned}" for r in (1, 2)]


def test_node_without_a_snapshot_of_a_round_refuses_to_restore_it(
    federate: "Federate",
) -> None:
    ran = federate(*NODES)
    kept = ran.store / ran.outcome.selected.slot / "round.npy"
    assert np.load(kept).tolist() == [ran.outcome.selected.round + 1] * CLIENTS
    node, selected = ran.open_node(), ran.outcome.selected
    node.store.require_snapshot(range(CLIENTS), selected.slot, selected.round)
    with pytest.raises(TrainingError, match=r"^client 0 has no snapshot of round 9"):
        node.store.require_snapshot(range(CLIENTS), selected.slot, 9)
