"""Validation of evaluation replies."""

from typing import Any

import numpy as np
import pytest
from flwr.app import Message, MetricRecord, RecordDict

from fedrec_flower.communication.schema import EVALUATE, EvaluateReply
from fedrec_flower.communication.validation import EvaluateReplySchema, InvalidReplyError
from fedrec_flower.data.interactions import Part
from fedrec_flower.evaluation.metric_sums import Bounds
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.transport.in_process import InProcessGrid

ASKED = [0, 2]
USERS = np.array([2, 9, 1])
SCHEMA = EvaluateReplySchema(
    Bounds(frozenset({"hr@10"}), (0.0, 1.0), USERS, {Part.VALIDATION: USERS, Part.TEST: USERS})
)


def honest() -> dict[str, Any]:
    """Return a valid reply about two clients with three users."""
    sums = {"validation/hr@10": [1.0, 1.0, 2.0], "test/hr@10": [0.0, 0.0, 3.0]}
    return {"num_clients": 2, "num_users": 3, **sums}


def validate(content: RecordDict) -> EvaluateReply:
    InProcessGrid(app, 2)  # prepares this process for creating messages
    asked = Message(RecordDict(), 1, EVALUATE)
    asked.metadata.__dict__["_message_id"] = "1"
    return SCHEMA.validate(Message(content, reply_to=asked), ASKED)


def content_of(metrics: dict[str, Any]) -> RecordDict:
    return RecordDict({"metrics": MetricRecord(metrics)})


def test_evaluate_schema_accepts_a_valid_reply() -> None:
    reply = validate(content_of(honest()))
    assert (reply.num_clients, reply.num_users) == (2, 3)
    assert reply.sums[Part.VALIDATION].of("hr@10") == (1.0, 1.0, 2.0)
    assert reply.sums[Part.TEST].of("hr@10") == (0.0, 0.0, 3.0)


def test_evaluate_reply_round_trip() -> None:
    content = content_of(honest())
    assert EvaluateReply.from_record(content).to_record() == content


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "fewer clients": ({"num_clients": 1}, "malformed"),
    "more users": ({"num_users": 4}, "malformed"),
    "number of users NaN": ({"num_users": float("nan")}, "malformed"),
    "one value instead of three": ({"test/hr@10": [1.0]}, "malformed"),
    "a number instead of a list": ({"test/hr@10": 1.0}, "malformed"),
    "a part that is not evaluated": ({"train/hr@10": [1.0, 1.0, 2.0]}, "malformed"),
    "an unknown part": ({"tests/hr@10": [1.0, 1.0, 2.0]}, "malformed"),
    "another metric": ({"test/hr@5": [1.0, 1.0, 2.0]}, "wrong_names"),
    "a mean above the range": ({"test/hr@10": [9.0, 9.0, 3.0]}, "out_of_range"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_evaluate_schema_rejects_an_invalid_reply(name: str) -> None:
    change, kind = CHANGES[name]
    with pytest.raises(InvalidReplyError) as caught:
        validate(content_of(honest() | change))
    assert caught.value.failure.kind == kind


@pytest.mark.parametrize("missing", [*honest(), None])
def test_evaluate_schema_rejects_a_reply_with_a_missing_field(missing: str | None) -> None:
    content = RecordDict()
    if missing is not None:
        content = content_of({key: value for key, value in honest().items() if key != missing})
    with pytest.raises(InvalidReplyError, match=r"^malformed: it lacks|^wrong_names"):
        validate(content)
