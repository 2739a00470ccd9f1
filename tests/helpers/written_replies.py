"""Replies as nodes write them, and ways to spoil one."""

from collections.abc import Callable
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedrec_flower.communication.limits import Limits
from fedrec_flower.communication.packing import ROWS
from fedrec_flower.communication.validation import InvalidReplyError, ReplySchema
from fedrec_flower.core.failures import FailureKind
from fedrec_flower.core.updates import LAYOUT, ROW_WEIGHT
from fedrec_flower.federation.client.app import app
from fedrec_flower.federation.transport.in_process import InProcessGrid

NUM_ITEMS, WIDTH = 6, 2
SHAPES = {"item": (NUM_ITEMS, WIDTH), "dense": (3,)}
ASKED = {1: [4, 5], 2: [8, 9]}
CLIENTS, WEIGHTS, OFFSETS, ROW_CODES, LOSSES = LAYOUT
Content = dict[str, dict[str, Any]]
Change = Callable[[Content], None]


def expected(*, stacked: bool = False, losses_below_zero: bool = False) -> ReplySchema:
    limits = Limits(weight=10.0, value=100.0)
    return ReplySchema(
        SHAPES,
        {"item"},
        NUM_ITEMS,
        limits,
        stacked,
        statistics=False,
        row_weights=True,
        losses_below_zero=losses_below_zero,
    )


def whole() -> Content:
    """What an honest node sends of two clients' sum, in whole tables."""
    return {
        "update": {
            "item": np.ones((NUM_ITEMS, WIDTH), np.float32),
            "dense": np.ones(3, np.float32),
            ROW_WEIGHT: np.full(NUM_ITEMS, 7.0),
        },
        "num_rows": {},
        "lost": {"clients": [], "reasons": []},
        "metrics": {"num_examples": 7.0, "loss": 1.5, "bytes_up": 9, "replied": 2},
    }


def packed() -> Content:
    """The same without the rows that nobody touched."""
    content = whole()
    rows = np.array([1, 4], np.int32)
    content["update"] |= {
        "item": np.ones((2, WIDTH), np.float32),
        ROW_WEIGHT: np.full(2, 7.0),
        ROWS: rows,
    }
    content["num_rows"] = {"item": NUM_ITEMS, ROW_WEIGHT: NUM_ITEMS}
    return content


def stacked() -> Content:
    """The same clients side by side."""
    content = whole()
    content["update"] = {
        "item": np.ones((3, WIDTH), np.float32),
        "dense": np.ones((2, 3), np.float32),
        CLIENTS: np.array([4, 5]),
        WEIGHTS: np.array([3.0, 4.0]),
        OFFSETS: np.array([0, 2, 3]),
        ROW_CODES: np.array([1, 4, 0]),
        LOSSES: np.array([0.5, 0.0]),
    }
    return content


def message(content: Content, node: int = 1) -> Message:
    """A reply of a node."""
    InProcessGrid(app, 2)  # makes this process a task that may make messages
    asked = Message(RecordDict(), node, "train")
    asked.metadata.__dict__["_message_id"] = "1"
    kinds: dict[str, Any] = {"num_rows": ConfigRecord, "lost": ConfigRecord}
    kinds |= {"metrics": MetricRecord}
    records = {
        name: ArrayRecord({n: v if isinstance(v, Array) else Array(v) for n, v in record.items()})
        if name == "update"
        else kinds[name](record)
        for name, record in content.items()
    }
    return Message(RecordDict(records), reply_to=asked)


def failure_kind(content: Content, *, each: bool = False) -> FailureKind | None:
    """Return the kind of failure for which a reply is rejected; None if it is valid."""
    try:
        expected(stacked=each).validate(message(content), ASKED[1])
    except InvalidReplyError as error:
        return error.failure.kind
    return None


def put(record: str, key: str, value: Any) -> Change:
    def change(content: Content) -> None:
        content[record][key] = value

    return change


def drop(record: str, key: str | None = None) -> Change:
    def change(content: Content) -> None:
        if key is None:
            del content[record]
        else:
            del content[record][key]

    return change


def poke(key: str, value: Any) -> Change:
    """One value of an array."""

    def change(content: Content) -> None:
        content["update"][key] = content["update"][key].copy()
        content["update"][key].flat[0] = value

    return change
