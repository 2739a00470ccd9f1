"""Collection of replies: valid ones are used, failures of all other clients are recorded."""

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from numpy.testing import assert_array_equal

from fedrec_flower.communication.failures import ClientFailures, format_counts, node_error
from fedrec_flower.communication.schema import TrainReply
from fedrec_flower.communication.validation import ValidReplies, each_update, update_sum
from fedrec_flower.core.failures import Failure, FailureKind
from tests.helpers.written_replies import ASKED, CLIENTS, Content, expected, message, stacked, whole


def failure(text: str) -> Failure:
    return Failure.parse(text)


def parsed(content: Content, node: int = 1) -> TrainReply:
    return TrainReply.from_record(message(content, node).content)


def second() -> Content:
    content = whole()
    content["metrics"]["replied"] = 1
    content["lost"] = {"clients": [9], "reasons": ["dropped_out"]}
    return content


def test_valid_replies_are_in_the_order_of_the_nodes() -> None:
    replies = [message(second(), 2), message(whole(), 1)]
    valid = ValidReplies.collect(replies, ASKED, expected())
    assert [reply.replied for reply in valid.replies] == [2, 1]
    assert valid.failures == {9: failure("dropped_out")}


def test_repeated_reply_is_counted_once() -> None:
    replies = [message(whole(), 1), message(second(), 2), message(second(), 2)]
    valid = ValidReplies.collect(replies, ASKED, expected())
    assert len(valid.replies) == 2
    assert valid.failures == {8: failure("repeated: counted once"), 9: failure("dropped_out")}
    assert update_sum(valid.replies).weight == 7.0 + 7.0


def test_reply_of_a_node_that_was_not_asked_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    replies = [message(whole(), 1), message(second(), 2), message(whole(), 3)]
    valid = ValidReplies.collect(replies, ASKED, expected())
    assert len(valid.replies) == 2
    assert "left out a reply of node 3, which was not asked" in caplog.text


def test_invalid_reply_fails_the_clients_of_its_node_only() -> None:
    bad = whole()
    bad["update"]["dense"] = np.full(3, np.nan, np.float32)
    valid = ValidReplies.collect([message(bad, 1), message(second(), 2)], ASKED, expected())
    assert valid.failures == dict.fromkeys((4, 5), failure("not_finite: dense")) | {
        9: failure("dropped_out")
    }
    alone = ValidReplies.collect([message(second(), 2)], {2: ASKED[2]}, expected())
    for name, value in update_sum(valid.replies).tensors.items():
        assert_array_equal(value, update_sum(alone.replies).tensors[name])


def test_node_without_reply_is_silent() -> None:
    valid = ValidReplies.collect([message(second(), 2)], ASKED, expected())
    assert {valid.failures[client].kind for client in (4, 5)} == {FailureKind.SILENT}


def test_valid_reply_after_an_invalid_one_is_used() -> None:
    bad = whole()
    del bad["update"]
    valid = ValidReplies.collect([message(bad, 1), message(whole(), 1)], {1: ASKED[1]}, expected())
    assert len(valid.replies) == 1
    assert valid.failures == {}


def failed(node: int) -> Message:
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    return Message(Error(0, "<class 'X'>:<'Message: disk is full'>"), reply_to=asked)


def test_node_error_is_the_error_text_if_all_nodes_fail() -> None:
    valid = ValidReplies.collect([failed(1), failed(2)], ASKED, expected())
    assert valid.replies == []
    assert valid.failures == dict.fromkeys((4, 5, 8, 9), failure("a_node_failed: disk is full"))
    assert node_error(valid.failures) == "disk is full"
    assert node_error(valid.failures | {4: failure("silent: too long")}) == node_error({}) == ""


def test_failed_node_does_not_affect_other_nodes() -> None:
    valid = ValidReplies.collect([failed(1), message(second(), 2)], ASKED, expected())
    assert valid.failures[4] == failure("a_node_failed: disk is full")
    assert len(valid.replies) == 1


def test_node_errors_are_logged_only_if_the_run_continues(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = ClientFailures("round 3")
    for _ in range(3):
        failures.add(dict.fromkeys((4, 5), failure("a_node_failed: disk is full")))
    assert not caplog.records
    failures.add({})
    assert [record.getMessage() for record in caplog.records] == [
        "round 3: left out client 4, 5: a_node_failed: disk is full"
    ]


def test_no_reply_fails_all_clients() -> None:
    valid = ValidReplies.collect([], ASKED, expected())
    assert valid.replies == []
    assert set(valid.failures) == {4, 5, 8, 9}


def test_individual_updates_are_sorted_by_client() -> None:
    other = stacked()
    other["update"][CLIENTS] = np.array([9, 8])
    replies = [parsed(other, 2), parsed(stacked(), 1)]
    updates, losses = each_update(replies, {"item"})
    assert_array_equal(updates.clients, [4, 5, 8, 9])
    assert_array_equal(updates.weights, [3, 4, 4, 3])
    assert_array_equal(updates.offsets, [0, 2, 3, 4, 6])
    assert_array_equal(updates.rows, [1, 4, 0, 0, 1, 4])
    assert_array_equal(losses, [0.5, 0, 0, 0.5])


def test_each_update_skips_empty_replies() -> None:
    empty = TrainReply(0.0, 0.0, 0, 0, {}, {}, {})
    expected(stacked=True).check(empty, ASKED[2])
    updates, _ = each_update([empty, parsed(stacked())], {"item"})
    assert_array_equal(updates.clients, [4, 5])


def test_warning_names_clients_and_reason_but_not_simulated_faults(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = dict.fromkeys(range(7), failure("not_finite: dense"))
    failures |= {8: failure("dropped_out"), 9: failure("late: after 9"), 11: failure("huge: item")}
    ClientFailures("round 3").add(failures)
    assert [record.getMessage() for record in caplog.records] == [
        "round 3: left out client 0, 1, 2, 3, 4 and 2 more: not_finite: dense",
        "round 3: left out client 11: huge: item",
    ]


def test_failures_of_attempts_add_up_and_are_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = ClientFailures("round 3")
    for _ in range(3):
        failures.add({4: failure("huge: item"), 5: failure("dropped_out")})
    failures.add({6: failure("huge: item")})
    assert failures.kinds == {"huge": 4, "dropped_out": 3}
    assert [record.getMessage() for record in caplog.records] == [
        f"round 3: left out client {client}: huge: item" for client in (4, 6)
    ]


def test_format_counts_lists_failures_by_kind() -> None:
    assert (
        format_counts({FailureKind.LATE: 2, FailureKind.DROPPED_OUT: 3}) == "3 dropped_out, 2 late"
    )
    assert format_counts({}) == "no reply"
