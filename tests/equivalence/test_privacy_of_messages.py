"""Personal parameters appear in no message, by name or by value, and evaluations only as sums."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto
from numpy.typing import NDArray

from fedrec_flower.communication.packing import ROWS, add_packed
from fedrec_flower.core.types import Sums
from fedrec_flower.core.updates import ROW_WEIGHT

if TYPE_CHECKING:
    from flwr.app import Message

    from tests.helpers.federations import Federate, Federated

RUNS = {
    "mf": ("model=mf",),
    "mf-rating": ("model=mf", "task=rating", "strategy.server_learning_rate=1.0"),
    "ncf": ("model=ncf",),
    "fedadam": ("model=ncf", "strategy=fedadam"),
    "pfedrec": ("model=pfedrec",),
    "fedrap": ("model=fedrap",),
    "local_only": ("model=mf", "strategy=local_only"),
    "local_only-ncf": ("model=ncf", "strategy=local_only"),
    "one client a round": ("clients_per_round=1", "evaluation.num_clients=1", "num_rounds=8"),
}


class Eavesdropper:
    """Records the personal parameters on disk at each message."""

    def __init__(self) -> None:
        self.secrets: set[bytes] = set()

    def __call__(self, asked: "list[Message]", replies: "list[Message]") -> "list[Message]":
        for message in asked[:1]:
            place: Any = message.content.config_records["config"]["place"]
            for file in Path(json.loads(place)["store"]).glob("*/*.npy"):
                if file.parent.name != "notes" and file.stem != "written":
                    self.secrets.update(needles(np.load(file)))
        return replies


def needles(table: NDArray[np.float32]) -> Iterator[bytes]:
    """Values to search for: each row, or a whole table if its rows are too short to be unique."""
    rows = table.reshape(-1, table.shape[-1])
    rare = rows if rows[0].nbytes >= 16 else table.reshape(1, -1)
    yield from (row.tobytes() for row in rare if np.count_nonzero(row) > 3)


def wire(message: "Message") -> bytes:
    """The message's content as it travels."""
    sent: bytes = recorddict_to_proto(message.content).SerializeToString()
    return sent


@pytest.fixture(params=RUNS, scope="module")
def heard(request: pytest.FixtureRequest, federate: "Federate") -> "tuple[Federated, set[bytes]]":
    """A run on three nodes, and every personal value that ever lay on a disk."""
    ear = Eavesdropper()
    ran = federate(*RUNS[request.param], "federation.num_nodes=3", meddle=ear)
    return ran, ear.secrets


def kept_names(ran: "Federated") -> set[str]:
    """Names of the parameters that must not travel."""
    names = {name for name, _ in ran.setup.model.named_parameters()}
    return names - set(ran.strategy.communicates * ran.setup.model.shared_names())


def test_messages_have_no_personal_name_or_value(
    heard: "tuple[Federated, set[bytes]]",
) -> None:
    require_silence(*heard)


def test_individual_updates_have_no_personal_name_or_value(
    federate: "Federate",
) -> None:
    ear = Eavesdropper()
    words = ("model=gpfedrec", "strategy=user_graph", "federation.num_nodes=3")
    require_silence(federate(*words, meddle=ear), ear.secrets)


def require_silence(ran: "Federated", secrets: set[bytes]) -> None:
    assert len(secrets) >= 3
    for message in ran.tap.asked + ran.tap.replies:
        sent = wire(message)
        assert not [name for name in kept_names(ran) if name.encode() in sent]
        assert not [secret for secret in secrets if secret in sent]


def test_search_finds_the_values_that_are_sent(federate: "Federate") -> None:
    ran = federate("model=mf")
    shared = ran.setup.initial(ran.strategy)["item_embedding.weight"]
    first = next(m for m in ran.tap.asked if m.metadata.message_type == "train")
    assert all(secret in wire(first) for secret in needles(shared))
    assert b"item_embedding.weight" in wire(first)


def test_train_reply_has_shared_tensors_row_weights_and_four_numbers(
    heard: "tuple[Federated, set[bytes]]",
) -> None:
    ran, _ = heard
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert replies
    for reply in replies:
        content = reply.content
        assert set(content) == {"update", "num_rows", "lost", "metrics"}
        sent = {name: array.numpy() for name, array in content.array_records["update"].items()}
        num_rows: Any = content.config_records["num_rows"]
        assert set(sent) - {ROWS, ROW_WEIGHT} == set(ran.shared)
        arrays = Sums()
        add_packed(arrays, sent, num_rows)
        if ran.shared:  # where neither parameters nor touched rows are sent
            assert arrays.pop(ROW_WEIGHT).shape == (ran.setup.data.num_items,)
        shapes = {name: value.shape for name, value in ran.shared.items()}
        assert {name: array.shape for name, array in arrays.items()} == shapes
        metrics = content.metric_records["metrics"]
        assert set(metrics) == {"num_examples", "loss", "bytes_up", "replied"}
        assert all(isinstance(value, int | float) for value in metrics.values())


def test_evaluate_reply_has_counts_and_sums(
    heard: "tuple[Federated, set[bytes]]",
) -> None:
    ran, _ = heard
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "evaluate"]
    assert replies
    for reply in replies:
        assert set(reply.content) == {"metrics"}
        metrics = dict(reply.content.metric_records["metrics"])
        num_clients, num_users = metrics.pop("num_clients"), metrics.pop("num_users")
        assert num_clients == num_users  # one user per client here
        for name, sums in metrics.items():
            assert name.split("/")[0] in {"validation", "test"}
            assert isinstance(sums, list)
            assert len(sums) == 3  # the sum, the sum of squares, the count


def test_flower_context_of_a_node_stays_empty(
    heard: "tuple[Federated, set[bytes]]",
) -> None:
    ran, _ = heard
    assert len(ran.tap.contexts) == 3
    assert all(len(context.state) == 0 for context in ran.tap.contexts)


def test_local_only_sends_no_parameter(federate: "Federate") -> None:
    ran = federate("model=ncf", "strategy=local_only")
    assert ran.shared == {}
    for message in ran.tap.asked:
        records = message.content.array_records
        assert all(len(record) == 0 for record in records.values())
