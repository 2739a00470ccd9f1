"""Whatever a node says of an evaluation, it is read without a trace, or refused with a reason."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from fedrec_flower.communication.evaluate_reply import ExpectedScores, Scored
from fedrec_flower.communication.failures import kind_of
from fedrec_flower.communication.train_reply import UnsoundError
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.metric_sums import Bounds
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.transport.in_process import InProcessGrid

ASKED = [0, 2]
USERS = np.array([2, 9, 1])
EXPECTED = ExpectedScores(
    Bounds(frozenset({"hr@10"}), (0.0, 1.0), USERS, {Part.VALIDATION: USERS, Part.TEST: USERS})
)


def honest() -> dict[str, Any]:
    """What an honest node says of two clients with three users."""
    sums = {"validation/hr@10": [1.0, 1.0, 2.0], "test/hr@10": [0.0, 0.0, 3.0]}
    return {"num_clients": 2, "num_users": 3, **sums}


def heard(metrics: dict[str, Any] | None) -> Scored:
    InProcessGrid(app, 2)  # makes this process a task that may make messages
    asked = Message(RecordDict(), 1, "evaluate")
    asked.metadata.__dict__["_message_id"] = "1"
    records = {} if metrics is None else {"metrics": MetricRecord(metrics)}
    return EXPECTED.heard(Message(RecordDict({**records}), reply_to=asked), ASKED)


def test_what_an_honest_node_says_is_read() -> None:
    scored = heard(honest())
    assert (scored.num_clients, scored.num_users) == (2, 3)
    assert scored.sums[Part.VALIDATION].of("hr@10") == (1.0, 1.0, 2.0)
    assert scored.sums[Part.TEST].of("hr@10") == (0.0, 0.0, 3.0)


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "fewer clients": ({"num_clients": 1}, "malformed"),
    "more users": ({"num_users": 4}, "malformed"),
    "half of everything": ({"num_users": float("nan")}, "malformed"),
    "a sum alone": ({"test/hr@10": [1.0]}, "malformed"),
    "a number for sums": ({"test/hr@10": 1.0}, "malformed"),
    "a part that is not evaluated": ({"train/hr@10": [1.0, 1.0, 2.0]}, "malformed"),
    "a part that is none": ({"tests/hr@10": [1.0, 1.0, 2.0]}, "malformed"),
    "another metric": ({"test/hr@5": [1.0, 1.0, 2.0]}, "wrong_names"),
    "too good": ({"test/hr@10": [9.0, 9.0, 3.0]}, "out_of_range"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_no_honest_node_says_is_refused(name: str) -> None:
    change, kind = CHANGES[name]
    with pytest.raises(UnsoundError) as caught:
        heard(honest() | change)
    assert kind_of(str(caught.value)) == kind


@pytest.mark.parametrize("lacking", [*honest(), None])
def test_what_is_lacking_is_refused(lacking: str | None) -> None:
    metrics = None if lacking is None else {k: v for k, v in honest().items() if k != lacking}
    with pytest.raises(UnsoundError, match=r"^malformed: it lacks|^wrong_names"):
        heard(metrics)
