"""Federations with faults, and the properties that they must keep."""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
from numpy.testing import assert_array_equal

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federated, Meddle

CLIENTS = 24
PATIENT = ("min_completion=0.0",)  # any round counts
CUSTOM = ("faults=custom", *PATIENT)
MIXED = (*CUSTOM, "faults.dropout=0.3", "faults.not_a_number=0.1", "faults.deadline=20.0")


def assert_counts_add_up(ran: "Federated") -> None:
    """Every sampled client replied or is counted as a failure; a repeated reply counts as both.

    For a repeated round, the failures of all attempts and the replies of the last are counted.
    """
    cohort = ran.setup.plan.clients_per_round
    for round_, replied in ran.watcher.replied.items():
        lost = sum(n for kind, n in ran.watcher.lost[round_].items() if kind != "repeated")
        attempts = ran.watcher.more[round_].get("attempts", 1)
        assert lost >= cohort - replied
        assert replied + lost <= cohort * attempts
        assert attempts > 1 or replied + lost == cohort
    told = sum((Counter(lost) for lost in ran.watcher.lost.values()), Counter[str]())
    assert ran.outcome.failures == told


def assert_same(one: "Federated", other: "Federated") -> None:
    """Both runs are equal, bit for bit."""
    assert one.watcher.lost == other.watcher.lost
    assert one.watcher.losses == other.watcher.losses
    assert one.metric_table() == other.metric_table()
    for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
        assert ours.keys() == theirs.keys()
        for name, value in ours.items():
            assert_array_equal(value, theirs[name])


def failing(kind: str, attempts: int = 99) -> "Meddle":
    """All nodes fail at the first requests of a kind.

    Args:
        kind: type of the message, with the stage of secure aggregation if there is one, as in
            "train.masked/share".
        attempts: number of failed requests.
    """
    from flwr.app import Error, Message

    times: list[str] = []

    def meddle(asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        records, found = asked[0].content.config_records, asked[0].metadata.message_type
        if "secure" in records:
            found += "/" + str(records["secure"]["stage"])
        if found != kind or len(times) >= attempts:
            return replies
        times.append(found)
        reason = "<class 'ClientAppException'>:<'Message: disk is full'>"
        return [Message(Error(0, reason), reply_to=message) for message in asked]

    return meddle


def written(ran: "Federated") -> set[int]:
    """The clients that ever kept personal parameters."""
    return set(np.flatnonzero(np.load(ran.store / "current" / "written.npy")).tolist())
