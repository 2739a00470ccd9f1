"""Under secure aggregation a federation learns what it would, and its server sees sums alone."""

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import chi2

from fedrec_flower.checking import check_strategy
from fedrec_flower.client import open_node
from fedrec_flower.client.app import app
from fedrec_flower.errors import ConfigError, TrainingError
from fedrec_flower.federation import InProcessGrid
from fedrec_flower.secure_aggregation import RefusedError, SecAgg
from fedrec_flower.strategies.masked import gather

if TYPE_CHECKING:
    from tests.federations import Federate, Federated, Meddle

SECURE = ("secure_aggregation=secagg", "secure_aggregation.num_neighbours=null")
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


@pytest.mark.parametrize("run", RUNS)
def test_a_run_is_the_same_with_and_without(federate: "Federate", run: str) -> None:
    one, other = (federate(*RUNS[run], *SHORT, *secure) for secure in ((), SECURE))
    assert_same(one, other, atol=1e-4)


def test_wider_integers_serve_statistics_that_are_no_whole_numbers(federate: "Federate") -> None:
    wide = (*SECURE, "secure_aggregation.modulus_bits=64")
    one, other = (federate("model=ials", *SHORT, *secure) for secure in ((), wide))
    assert_same(one, other, atol=1e-5)


@pytest.mark.parametrize("model", ["ease", "popularity"])
def test_whole_numbers_come_out_exact(federate: "Federate", model: str) -> None:
    one, other = (federate(f"model={model}", *SHORT, *secure) for secure in ((), SECURE))
    for name, tensor in one.shared.items():
        assert_array_equal(other.shared[name], tensor)


def test_the_comparison_could_fail(federate: "Federate") -> None:
    one = federate(*NODES, *SECURE)
    coarse = federate(*NODES, *SECURE, "secure_aggregation.clip_range=1e-5")
    assert any(abs(coarse.shared[n] - one.shared[n]).max() > 1e-3 for n in one.shared)


@pytest.mark.parametrize("num_nodes", [3, 24])
def test_who_hosts_whom_does_not_matter(federate: "Federate", num_nodes: int) -> None:
    few = ("secure_aggregation=secagg", "secure_aggregation.num_neighbours=6")
    one, other = (
        federate(*SHORT, *few, f"federation.num_nodes={nodes}") for nodes in (6, num_nodes)
    )
    assert_same(one, other, atol=1e-4)


def test_the_same_seed_is_the_same_run_though_no_key_is_seeded(federate: "Federate") -> None:
    one, again = (federate(*NODES, *SECURE) for _ in range(2))
    assert one.metric_table() == again.metric_table()
    for name, tensor in one.shared.items():
        assert_array_equal(again.shared[name], tensor)
    sent = [masked(ran) for ran in (one, again)]
    assert all((a != b).any() for a, b in zip(*sent, strict=True))


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_noise_is_added_once_to_the_sum_that_comes_out(federate: "Federate", noise: float) -> None:
    private = (
        *("privacy=central_dp", "privacy.target_epsilon=null", f"privacy.noise_multiplier={noise}"),
        *("strategy.aggregation=all_clients", "min_completion=0"),
    )
    one, other = (federate(*private, *SHORT, *secure) for secure in ((), SECURE))
    assert_same(one, other, atol=1e-3)


# --- what the server sees -----------------------------------------------------------------------


def stages(ran: "Federated") -> list[tuple[str, Message]]:
    """Every reply but those to queries and evaluations, with the stage it belongs to."""
    pairs = zip(ran.tap.asked, ran.tap.replies, strict=True)
    return [
        (str(asked.content.config_records["secure"]["stage"]), reply)
        for asked, reply in pairs
        if asked.metadata.message_type == "train.masked"
    ]


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
        "mask": {"clients", "reasons"},
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


# --- nodes that fall silent ---------------------------------------------------------------------


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


@pytest.mark.parametrize("stage", ["advertise", "share", "mask", "unmask"])
def test_the_sum_is_that_of_the_nodes_that_stayed(federate: "Federate", stage: str) -> None:
    short = (*NODES, "num_rounds=1")  # a node that trained before it fell silent has moved
    one = federate(*short, meddle=without({2, 5} if stage != "unmask" else set()))
    other = federate(*short, *SECURE, meddle=falling_silent(stage, {2, 5}))
    for name, tensor in one.shared.items():
        assert_allclose(other.shared[name], tensor, atol=1e-5)
    assert other.watcher.replied == one.watcher.replied
    assert other.watcher.lost == one.watcher.lost


def test_below_the_threshold_nothing_moves_and_the_round_is_tried_again(
    federate: "Federate",
) -> None:
    words = (*NODES, *SECURE, "num_rounds=1")
    for stage in ("advertise", "share", "mask", "unmask"):
        ran = federate(*words, meddle=falling_silent(stage, {1, 2, 3}, rounds=1))
        assert ran.watcher.replied == {1: 18}
        assert ran.outcome.lost.keys() <= {"silent", "too_few_nodes"}
        assert sum(ran.outcome.lost.values()) == 18
        with pytest.raises(TrainingError, match=r"fewer than 50% .* too_few_nodes"):
            federate(*words, meddle=falling_silent(stage, {1, 2, 3}))


def test_whoever_is_left_without_neighbours_is_lost_too(federate: "Federate") -> None:
    """On a circle of nodes with two neighbours each, the neighbours of a gap cannot go on."""
    few = ("secure_aggregation.num_neighbours=2", "secure_aggregation.min_nodes=3")
    gap = falling_silent("advertise", {1}, rounds=1)
    ran = federate(*NODES, *SECURE, *few, "num_rounds=1", meddle=gap)
    # Every one of three must stay, so the whole circle comes undone, and is tried again.
    assert ran.watcher.replied == {1: 18}
    assert sum(ran.outcome.lost.values()) == 18


def test_under_noise_a_round_that_aborts_moves_by_noise_alone(federate: "Federate") -> None:
    private = (
        *("privacy=central_dp", "privacy.target_epsilon=null", "privacy.noise_multiplier=0.5"),
        *("strategy.aggregation=all_clients", "min_completion=0", "privacy.sampling=fixed"),
    )
    aborts = falling_silent("mask", {1, 2, 3})
    ran = federate(*private, *NODES, *SECURE, "num_rounds=1", meddle=aborts)
    assert ran.watcher.replied == {1: 0}
    assert all(np.isfinite(value).all() for value in ran.shared.values())


@pytest.mark.parametrize("stage", ["advertise", "share", "mask"])
def test_a_node_that_talks_nonsense_has_dropped_out(
    federate: "Federate", stage: str, caplog: pytest.LogCaptureFixture
) -> None:
    def garbled(asked: list[Message], replies: list[Message]) -> list[Message]:
        if stage_of(asked) == stage:
            del replies[0].content["said"]
        return replies

    ran = federate(*NODES, *SECURE, "num_rounds=1", meddle=garbled)
    assert ran.watcher.lost[1] == {"malformed": 18 - ran.watcher.replied[1]}
    assert 0 < ran.watcher.replied[1] < 18
    assert "malformed: it lacks 'said'" in caplog.text


def test_whoever_is_lost_on_a_node_is_told_by_kind_alone(federate: "Federate") -> None:
    ran = federate(*NODES, *SECURE, "faults=custom", "faults.huge=0.3", "num_rounds=1")
    lost = [
        reason
        for stage, reply in stages(ran)
        if stage == "mask"
        for reason in reply.content.config_records["said"]["reasons"]  # type: ignore[union-attr]  # a list
    ]
    assert "huge" in lost
    assert not any(":" in str(reason) for reason in lost)


def test_what_was_clipped_is_told(federate: "Federate", caplog: pytest.LogCaptureFixture) -> None:
    federate(*NODES, *SECURE, "num_rounds=1", "secure_aggregation.clip_range=1e-4")
    assert "beyond secure_aggregation.clip_range=0.0001 and were clipped" in caplog.text


# --- requests that no honest server makes -------------------------------------------------------


@pytest.fixture(scope="module")
def ask(federate: "Federate") -> Callable[..., Message]:
    """Ask the first node of a secure run anything, in a state that lasts."""
    ran = federate(*NODES, *SECURE, "num_rounds=1")
    context = ran.tap.contexts[0]

    def ask(kind: str, **secure: Any) -> Message:
        parameters = ran.tap.asked[-1].content.array_records["parameters"]
        about = {"clients": [0, 1], "round": 2, "attempt": 0}
        config: dict[str, Any] = {"job": ran.job, **about, "versions": []}
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


def test_shares_are_not_revealed_before_a_vector_is_masked(ask: Callable[..., Message]) -> None:
    ask("train.masked", stage="advertise", place=0, threshold=2)
    with pytest.raises(RefusedError, match="asked to unmask, but next it can share"):
        ask("train.masked", stage="unmask", survivors=[0, 1], dropouts=[])


# --- what it refuses ----------------------------------------------------------------------------


def test_too_few_nodes_are_refused_before_the_first_round(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match="min_nodes=3 is more than the 2 nodes"):
        federate(*SECURE, "federation.num_nodes=2")


def test_compression_is_refused_for_masked_tables_are_whole(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match="compression=int8 does not fit secure_aggregation"):
        federate(*NODES, *SECURE, "compression=int8")


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("krum", "Krum looks at every update by itself"),
        ("median", "Median looks at every update"),
        ("clustered", "Clustered looks at every update"),
        ("local_only", "LocalOnly sends nothing"),
    ],
)
def test_strategies_that_need_more_or_less_than_a_sum_are_refused(
    federate: "Federate", strategy: str, words: str
) -> None:
    ran = federate(f"strategy={strategy}", "num_rounds=0")
    secure = SecAgg(4, 0.6, 3, 1.0, None, 32, "nearest", 10.0)
    with pytest.raises(ConfigError, match=f"{words}.*or secure_aggregation=none"):
        secure.check_strategy(
            type(ran.strategy).__name__, shares=ran.strategy.shares, stacked=ran.strategy.stacked
        )
    check_strategy(ran.strategy, ran.setup.model)  # in clear it is welcome


def test_clients_that_are_given_several_models_are_refused(federate: "Federate") -> None:
    ran = federate("strategy=clustered", *SHORT)
    asked = [m for m in ran.tap.asked if m.metadata.message_type == "train"][-1:]
    secure, nowhere = SecAgg(4, 0.6, 3, 1.0, None, 32, "nearest", 10.0), InProcessGrid(app, 1)
    ran.strategy._post.asked = {asked[0].metadata.dst_node_id: [0]}
    with pytest.raises(ConfigError, match="clients are given several"):
        gather(secure, nowhere, asked, ran.strategy._post, ran.strategy._expected())


def test_a_node_knows_from_its_job_whether_to_mask(federate: "Federate") -> None:
    plain, secure = (federate(*NODES, "num_rounds=0", *words) for words in ((), SECURE))
    for ran, name in ((plain, "none"), (secure, "secagg")):
        assert json.loads(ran.job)["secure_aggregation"]["name"] == name
        assert isinstance(open_node(ran.job).secure, SecAgg) == (name == "secagg")
