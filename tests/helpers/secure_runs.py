"""Runs under secure aggregation, and what they are compared with."""

from typing import TYPE_CHECKING

import pytest
from flwr.app import Message
from numpy.testing import assert_allclose

if TYPE_CHECKING:
    from tests.helpers.federations import Federated, Meddle

SECURE = (
    "secure_aggregation=secagg",
    "secure_aggregation.num_neighbours=null",
    "secure_aggregation.min_clients=2",
    "secure_aggregation.weights=examples",
)
NODES = ("federation.num_nodes=6", "clients_per_round=18", "evaluation.num_clients=12")
SHORT = (*NODES, "num_rounds=2", "evaluation.every=2")
RUNS = {
    "mf": ("model=mf",),
    "ncf": ("model=ncf",),
    "textbook": ("strategy.aggregation=all_clients",),
    "fedadam": ("strategy=fedadam",),
    "scaffold": ("strategy=scaffold",),
    "feddyn": ("strategy=feddyn",),
    "rating": ("task=rating", "strategy.server_learning_rate=1.0"),
    "faults": ("faults=mixed", "faults.dropout=0.2", "faults.not_a_number=0.2"),
}


def assert_same(one: "Federated", other: "Federated", atol: float) -> None:
    """Metrics, losses, counts and parameters of two runs."""
    table = one.metric_table()
    for key, value in other.metric_table().items():
        assert value == pytest.approx(table[key], abs=atol), key
    losses = list(one.watcher.losses.values())
    assert_allclose(list(other.watcher.losses.values()), losses, atol=1e-4)
    assert other.watcher.replied == one.watcher.replied
    for name, tensor in one.shared.items():
        assert_allclose(other.shared[name], tensor, atol=atol, err_msg=name)


def stages(ran: "Federated") -> list[tuple[str, Message]]:
    """Every reply but those to queries and evaluations, with the stage it belongs to."""
    pairs = zip(ran.tap.asked, ran.tap.replies, strict=True)
    return [
        (str(asked.content.config_records["secure"]["stage"]), reply)
        for asked, reply in pairs
        if asked.metadata.message_type == "train.masked"
    ]


def stage_of(asked: list[Message]) -> str | None:
    """The stage of secure aggregation that an exchange belongs to."""
    if asked[0].metadata.message_type != "train.masked":
        return None
    return str(asked[0].content.config_records["secure"]["stage"])


def falling_silent(stage: str, nodes: set[int], rounds: int = 99) -> "Meddle":
    """Some nodes' replies to a stage never arrive."""
    seen = []

    def meddle(asked: list[Message], replies: list[Message]) -> list[Message]:
        if stage_of(asked) != stage:
            return replies
        seen.append(stage)
        left_out = nodes if len(seen) <= rounds else set()
        return [r for r in replies if r.metadata.src_node_id not in left_out]

    return meddle


def without(nodes: set[int]) -> "Meddle":
    """The same in clear."""

    def meddle(asked: list[Message], replies: list[Message]) -> list[Message]:
        if asked[0].metadata.message_type != "train":
            return replies
        return [r for r in replies if r.metadata.src_node_id not in nodes]

    return meddle
