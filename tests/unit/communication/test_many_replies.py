"""Of many replies the sound ones count, and the server goes on."""

import numpy as np
import pytest
from flwr.app import Error, Message, RecordDict
from numpy.testing import assert_array_equal

from fedrec_flower.communication.failures import Losses, kind_of, said, words_of_nodes
from fedrec_flower.communication.train_reply import Reply, read
from fedrec_flower.communication.validation import Sound, each_update, update_sum
from tests.helpers.written_replies import ASKED, CLIENTS, Content, expected, message, stacked, whole


def second() -> Content:
    content = whole()
    content["metrics"]["replied"] = 1
    content["lost"] = {"clients": [9], "reasons": ["dropped_out"]}
    return content


def test_sound_replies_stand_in_the_order_of_the_nodes() -> None:
    replies = [message(second(), 2), message(whole(), 1)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert [reply.replied for reply in sound.replies] == [2, 1]
    assert sound.lost == {9: "dropped_out"}


def test_a_reply_that_comes_again_is_counted_once() -> None:
    replies = [message(whole(), 1), message(second(), 2), message(second(), 2)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert len(sound.replies) == 2
    assert sound.lost == {8: "repeated: counted once", 9: "dropped_out"}
    assert update_sum(sound.replies).weight == 7.0 + 7.0


def test_a_node_that_was_not_asked_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    replies = [message(whole(), 1), message(second(), 2), message(whole(), 3)]
    sound = Sound.sort_out(replies, ASKED, expected())
    assert len(sound.replies) == 2
    assert "left out a reply of node 3, which was not asked" in caplog.text


def test_a_bad_node_loses_its_clients_and_no_others() -> None:
    bad = whole()
    bad["update"]["dense"] = np.full(3, np.nan, np.float32)
    sound = Sound.sort_out([message(bad, 1), message(second(), 2)], ASKED, expected())
    assert sound.lost == dict.fromkeys((4, 5), "not_finite: dense") | {9: "dropped_out"}
    alone = Sound.sort_out([message(second(), 2)], {2: ASKED[2]}, expected())
    for name, value in update_sum(sound.replies).tensors.items():
        assert_array_equal(value, update_sum(alone.replies).tensors[name])


def test_a_silent_node_is_told_from_a_broken_one() -> None:
    sound = Sound.sort_out([message(second(), 2)], ASKED, expected())
    assert {kind_of(sound.lost[client]) for client in (4, 5)} == {"silent"}


def test_a_sound_reply_after_a_broken_one_counts() -> None:
    bad = whole()
    del bad["update"]
    sound = Sound.sort_out([message(bad, 1), message(whole(), 1)], {1: ASKED[1]}, expected())
    assert len(sound.replies) == 1
    assert sound.lost == {}


def failed(node: int) -> Message:
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    return Message(Error(0, "<class 'X'>:<'Message: disk is full'>"), reply_to=asked)


def test_where_every_node_fails_all_is_lost_in_the_words_of_one_of_them() -> None:
    sound = Sound.sort_out([failed(1), failed(2)], ASKED, expected())
    assert sound.replies == []
    assert sound.lost == dict.fromkeys((4, 5, 8, 9), "a_node_failed: disk is full")
    assert words_of_nodes(sound.lost) == "disk is full"
    assert words_of_nodes(sound.lost | {4: "silent: too long"}) == words_of_nodes({}) == ""


def test_where_one_node_fails_the_others_go_on() -> None:
    sound = Sound.sort_out([failed(1), message(second(), 2)], ASKED, expected())
    assert sound.lost[4] == "a_node_failed: disk is full"
    assert len(sound.replies) == 1


def test_what_the_run_may_end_in_is_not_warned_of_before_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    losses = Losses("round 3")
    for _ in range(3):
        losses.add(dict.fromkeys((4, 5), "a_node_failed: disk is full"))
    assert not caplog.records
    losses.add({})
    assert [record.getMessage() for record in caplog.records] == [
        "round 3: left out client 4, 5: a_node_failed: disk is full"
    ]


def test_where_nobody_replies_nothing_is_sound_and_nothing_raises() -> None:
    sound = Sound.sort_out([], ASKED, expected())
    assert sound.replies == []
    assert set(sound.lost) == {4, 5, 8, 9}


def test_updates_side_by_side_stand_ascending_by_client() -> None:
    other = stacked()
    other["update"][CLIENTS] = np.array([9, 8])
    replies = [read(message(other, 2)), read(message(stacked(), 1))]
    updates, losses = each_update(replies, {"item"})
    assert_array_equal(updates.clients, [4, 5, 8, 9])
    assert_array_equal(updates.weights, [3, 4, 4, 3])
    assert_array_equal(updates.offsets, [0, 2, 3, 4, 6])
    assert_array_equal(updates.rows, [1, 4, 0, 0, 1, 4])
    assert_array_equal(losses, [0.5, 0, 0, 0.5])


def test_nodes_that_tell_nothing_are_left_out_of_what_stands_side_by_side() -> None:
    silent = Reply(0.0, 0.0, 0, 0, {}, {}, {})
    expected(stacked=True).check(silent, ASKED[2])
    updates, _ = each_update([silent, read(message(stacked()))], {"item"})
    assert_array_equal(updates.clients, [4, 5])


def test_a_warning_names_clients_and_reason_and_spares_the_expected(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lost = dict.fromkeys(range(7), "not_finite: dense") | {8: "dropped_out", 9: "late: after 9"}
    Losses("round 3").add(lost | {11: "huge: item"})
    assert [record.getMessage() for record in caplog.records] == [
        "round 3: left out client 0, 1, 2, 3, 4 and 2 more: not_finite: dense",
        "round 3: left out client 11: huge: item",
    ]


def test_what_several_attempts_lose_adds_up_and_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    losses = Losses("round 3")
    for _ in range(3):
        losses.add({4: "huge: item", 5: "dropped_out"})
    losses.add({6: "huge: item"})
    assert losses.kinds == {"huge": 4, "dropped_out": 3}
    assert [record.getMessage() for record in caplog.records] == [
        f"round 3: left out client {client}: huge: item" for client in (4, 6)
    ]


def test_losses_are_said_by_kind() -> None:
    assert said({"late": 2, "dropped_out": 3}) == "3 dropped_out, 2 late"
    assert said({}) == "no reply"
