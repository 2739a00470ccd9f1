"""Under secure aggregation the server sees sums alone, and asks in vain for more."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from scipy.stats import chi2

from fedrec_flower.communication.secure_aggregation.client import RefusedError
from fedrec_flower.federation.client.app import app
from tests.helpers.secure_runs import NODES, SECURE, falling_silent, stages

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated


NOBODY: dict[str, Any] = {"places": [], "clients": [], "tags": []}


def masked(ran: "Federated") -> list[Any]:
    """The masked vectors that the server was sent."""
    replies = [reply for stage, reply in stages(ran) if stage == "mask"]
    return [reply.content.array_records["masked"]["vector"].numpy() for reply in replies]


def test_every_message_to_the_server_is_of_keys_shares_or_masked_vectors(
    federate: "Federate",
) -> None:
    ran = federate(*NODES, *SECURE)
    fields = {
        "advertise": {"encryption", "masking"},
        "share": {"places", "values"},
        "mask": {"clients", "reasons", "replied", "places", "tags"},
        "unmask": {"survivors", "seeds", "dropouts", "keys"},
    }
    kinds = {message.metadata.message_type for message in ran.tap.asked}
    assert kinds == {"query", "evaluate", "train.masked"}  # nothing is trained in clear
    assert [stage for stage, _ in stages(ran)] == [s for s in fields for _ in range(6)] * 3
    for stage, reply in stages(ran):
        assert set(reply.content) == {"said"} | ({"masked"} if stage == "mask" else set())
        said: Any = reply.content.config_records["said"]
        assert set(said) == fields[stage]
        if stage == "mask":
            assert said["clients"] == said["reasons"] == []
            assert 0 < said["replied"] <= 18
            assert list(reply.content.array_records["masked"]) == ["vector"]
        values = [v for field in said.values() for v in (field if isinstance(field, list) else [])]
        assert all(isinstance(value, bytes) or value in range(6) for value in values)


def test_of_no_member_both_secrets_are_revealed(federate: "Federate") -> None:
    ran = federate(*NODES, *SECURE, meddle=falling_silent("mask", {1}))
    seeds, keys = set[tuple[int, int]](), set[tuple[int, int]]()
    for place, (stage, reply) in enumerate(stages(ran)):
        if stage == "unmask":
            told: Any = reply.content.config_records["said"]
            seeds |= {(place // 23, member) for member in told["survivors"]}
            keys |= {(place // 23, member) for member in told["dropouts"]}
    assert len(keys) == 3
    assert not seeds & keys


def test_what_a_node_sends_is_noise_and_their_sum_alone_is_not(federate: "Federate") -> None:
    """A catalogue of 4,000 items, so that there are bytes enough to count."""
    ran = federate(*NODES, *SECURE, "dataset.num_items=4000", "num_rounds=1")
    vectors = masked(ran)
    assert len(vectors) == 6
    for vector in vectors:
        assert chi_square_p_value(vector.tobytes()) > 1e-4
    model = ran.setup.model
    size = sum(model.get_parameter(name).numel() for name in model.shared_names())
    assert len(vectors[0]) == size + 4000 + 4  # tables whole, row weights, four facts
    change = np.concatenate([value.ravel() for value in ran.shared.values()])
    assert chi_square_p_value(change.astype(np.float32).tobytes()) < 1e-9


def chi_square_p_value(sent: bytes) -> float:
    counts = np.bincount(np.frombuffer(sent, np.uint8), minlength=256)
    expected = len(sent) / 256
    return float(chi2.sf(((counts - expected) ** 2 / expected).sum(), 255))


def test_nothing_of_a_session_is_left_on_a_node(federate: "Federate") -> None:
    ran = federate(*NODES, *SECURE)
    assert all(not context.state for context in ran.tap.contexts)
    secret = [path for path in ran.store.rglob("*") if "secur" in path.name]
    assert secret == []


def test_bytes_are_those_that_were_sent(federate: "Federate") -> None:
    ran = federate(*NODES, *SECURE, "federation.num_nodes=24", "num_rounds=1")
    sent = 0
    for _, reply in stages(ran):
        said: Any = reply.content.config_records["said"]
        arrays = [a for record in reply.content.array_records.values() for a in record.values()]
        sent += sum(len(array.data) for array in arrays)
        for field in said.values():
            listed = field if isinstance(field, list) else [field]
            sent += sum(len(value) for value in listed if isinstance(value, bytes))
    assert ran.outcome.bytes_up == round(sent / 18)


@pytest.fixture(scope="module")
def ask(federate: "Federate") -> Callable[..., Message]:
    """Ask the first node of a secure run anything, in a state that lasts."""
    ran = federate(*NODES, *SECURE, "num_rounds=1")
    context = ran.tap.contexts[0]

    def ask(kind: str, **secure: Any) -> Message:
        parameters = ran.tap.asked[-1].content.array_records["parameters"]
        about = {"clients": [0, 1], "round": 2, "attempt": 0}
        config: dict[str, Any] = {**ran.header, **about, "versions": []}
        content = RecordDict({"parameters": parameters, "config": ConfigRecord(config)})
        if secure:
            content["secure"] = ConfigRecord({"session": "one", **secure})
            content["parameters"] = ArrayRecord()
        message = Message(content, context.node_id, kind, group_id="2")
        message.metadata.__dict__["_message_id"] = "some"
        return app(message, context)

    return ask


def test_an_update_in_clear_is_refused(ask: Callable[..., Message]) -> None:
    with pytest.raises(RefusedError, match="asked for, but the run aggregates securely"):
        ask("train")


def test_a_stage_of_another_session_is_refused(ask: Callable[..., Message]) -> None:
    ask("train.masked", stage="advertise", place=0, threshold=2)
    with pytest.raises(RefusedError, match="in a session never begun"):
        ask("train.masked", stage="share", session="two")


def test_a_server_that_asks_for_threshold_one_and_no_neighbours_gets_no_vector(
    ask: Callable[..., Message],
) -> None:
    """Item 14: nodes refuse thresholds and neighbourhoods below the settings."""
    ask("train.masked", stage="advertise", place=0, threshold=1)
    with pytest.raises(RefusedError, match="threshold of 1 for 1 nodes is below the 3"):
        ask("train.masked", stage="share", places=[], encryption=[], masking=[])


def test_shares_are_not_revealed_before_a_vector_is_masked(ask: Callable[..., Message]) -> None:
    ask("train.masked", stage="advertise", place=0, threshold=2)
    with pytest.raises(RefusedError, match="asked to unmask, but next it can share"):
        ask("train.masked", stage="unmask", survivors=[0, 1], dropouts=[], **NOBODY)
