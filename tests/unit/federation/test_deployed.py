"""Finding 9: a job cannot set a path, a seed or an import of a deployed node, which has rules."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from fedrec_flower.core.errors import ConfigError, FedrecError, TrainingError
from fedrec_flower.core.random import generator
from fedrec_flower.experiment.composition import compose_deployment
from fedrec_flower.experiment.run import set_up
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.client import deployed
from fedrec_flower.federation.client import handlers as serving
from fedrec_flower.federation.client.cohort_client import CohortClient
from fedrec_flower.federation.client.deployed import app, node_of
from fedrec_flower.federation.client.node import Node, open_node
from fedrec_flower.federation.client.trainers import GradientTrainer
from fedrec_flower.federation.client.update_pipeline import PrivacyStep
from fedrec_flower.federation.transport.in_process import InProcessGrid

Job = dict[str, Any]
PSEUDO_ITEMS = {"_target_": "fedrec_flower.privacy.PseudoItems", "ratio": 1.0, "dense": False}
WORDS = ("experiment=smoke", "training.engine=sequential")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Job, Path]:
    """The job of a deployed run, and the folder of its prepared data."""
    cache = tmp_path_factory.mktemp("cache")
    config, _, _ = compose_deployment([*WORDS, f"dataset.cache_dir={cache}"])
    setup = set_up(config, RunFolder(cache / "run"), InProcessGrid(app, 1))
    assert setup.plan.place is None
    return json.loads(setup.plan.job.to_json()), setup.data.path


@pytest.fixture
def opened(job: tuple[Job, Path], tmp_path: Path) -> Callable[..., Node]:
    """The node that a message opens, its job changed and its owner's rules added."""

    def open_(
        changes: Job | None = None, fields: Job | None = None, /, **own: bool | float | str
    ) -> Node:
        told, prepared = job
        config = {"job": json.dumps(told | (changes or {})), **(fields or {})}
        content = RecordDict({"config": ConfigRecord(config)})
        names = {name.replace("_", "-"): value for name, value in own.items()}
        known = {"prepared": str(prepared), "store": str(tmp_path / "store"), **names}
        place = {"partition-id": 0, "num-partitions": 2} | known
        context = Context(1, 1, {k: v for k, v in place.items() if v != ""}, RecordDict(), {})
        InProcessGrid(app, 1)  # a Message is made inside a task of Flower
        return node_of(Message(content, 1, "query"), context)

    return open_


def test_deployed_node_uses_the_folders_of_its_owner(
    opened: Callable[..., Node], job: tuple[Job, Path], tmp_path: Path
) -> None:
    node = opened()
    assert node.store.folder == tmp_path / "store" / job[0]["run"]
    assert node.data.path == job[1]


def test_deployed_node_treats_a_resumed_run_as_the_same_run(
    job: tuple[Job, Path], opened: Callable[..., Node]
) -> None:
    """A new identity at every start lost what clients had answered, and their parameters."""
    assert job[0]["run"] == RunFolder(job[1].parent.parent / "run").run_id
    again = opened({"session": "of a process that goes on"})
    assert again.store.folder == opened().store.folder


def test_deployed_node_has_one_secret_for_all_runs(
    opened: Callable[..., Node], tmp_path: Path
) -> None:
    """Item 6: randomized responses that differ between runs would spend their epsilon again.

    Equal training draws in two runs would show what the runs have in common.
    """
    lasting, training = list[list[float]](), list[list[float]]()
    for run in ("first", "second", "first"):
        node = opened({"run": run, "privacy": PSEUDO_ITEMS})
        assert isinstance(node.trainer, GradientTrainer)
        assert node.store.folder == tmp_path / "store" / run
        (privacy,) = [s for s in node.trainer.pipeline.steps if isinstance(s, PrivacyStep)]
        source = privacy.noise_source.persistent_stream("pseudo-items", 3)
        lasting.append(source.uniform((4,)).tolist())
        training.append(generator(node.seed, "shuffle", 1, 3).random(4).tolist())
    assert lasting[0] == lasting[1] == lasting[2]
    assert training[0] == training[2] != training[1]
    secrets = [path.relative_to(tmp_path) for path in tmp_path.rglob("secret")]
    assert secrets == [Path("store/secret")]


@pytest.mark.parametrize("rule", ["min_clients", "min_nodes"])
def test_deployed_node_checks_the_size_of_a_sum(opened: Callable[..., Node], rule: str) -> None:
    """Item 14: a sum is released over min_clients clients or more."""
    secure = {
        "_target_": "fedrec_flower.communication.secure_aggregation.SecAgg",
        "num_neighbours": 20,
        "threshold": 0.6,
        "min_nodes": 3,
        "min_clients": 10,
        "weights": "powers",
        "clip_range": 1.0,
        "value_bits": None,
        "modulus_bits": 32,
        "rounding": "stochastic",
    }
    weaker = {**secure, rule: 2}
    assert opened({"secure_aggregation": secure}, **{rule: 3})
    with pytest.raises(ConfigError, match=rf"allows secure_aggregation\.{rule} from 3 on.*has 2"):
        opened({"secure_aggregation": weaker}, **{rule: 3})


@pytest.mark.parametrize("name", ["prepared", "store"])
def test_finding_9_a_path_in_a_job_is_rejected(opened: Callable[..., Node], name: str) -> None:
    with pytest.raises(ConfigError, match=f"the server sends .'{name}'.*only the --node-config"):
        opened({name: "/elsewhere"})


def test_finding_9_a_place_in_a_message_is_rejected(opened: Callable[..., Node]) -> None:
    with pytest.raises(ConfigError, match=r"the server sends .'place'"):
        opened({}, {"place": "{}"})


@pytest.mark.parametrize("run", ["../other", "/elsewhere", "a/b", "..", ""])
def test_finding_9_a_path_as_run_name_is_rejected(opened: Callable[..., Node], run: str) -> None:
    with pytest.raises(FedrecError, match="is not the name of a file"):
        opened({"run": run})


@pytest.mark.parametrize("slot", ["/elsewhere", "../../other", "..", ".", "a/b", ""])
def test_finding_9_a_slot_that_is_a_path_is_rejected(
    opened: Callable[..., Node], tmp_path: Path, slot: str
) -> None:
    node = opened()
    with pytest.raises(FedrecError, match="is not the name of a file"):
        node.store.snapshot(range(1), slot, 1)
    with pytest.raises(FedrecError, match="is not the name of a file"):
        node.store.require_snapshot([0], slot, 1)
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


@pytest.mark.parametrize(
    "group",
    [
        *("model", "training", "evaluation", "compression", "faults", "attack"),
        *("secure_aggregation", "privacy", "local"),
    ],
)
def test_finding_9_a_job_cannot_call_a_function_of_its_choice(
    opened: Callable[..., Node], tmp_path: Path, group: str
) -> None:
    mark = tmp_path / "mark"
    with pytest.raises(ConfigError, match=rf"{group}"):
        opened({group: {"_target_": "subprocess.run", "args": ["touch", str(mark)]}})
    assert not mark.exists()


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"randomness": "seeded"}, "randomness=seeded would let the server know"),
        ({"data": "0" * 16}, r"the node holds other data \([0-9a-f]{16}\) than the server \(0{16}"),
        (
            {"attack": {"_target_": "fedrec_flower.threats.Profiles", "name": "popular"}},
            "attack=popular belongs to simulations",
        ),
        (
            {"faults": {"_target_": "fedrec_flower.threats.Faults", "name": "none"}},
            "faults=none belongs to simulations",
        ),
    ],
)
def test_deployed_node_rejects_a_job_with_one_sentence(
    opened: Callable[..., Node], changes: Job, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opened(changes)


@pytest.mark.parametrize(
    ("own", "complaint"),
    [
        ({"prepared": ""}, "the node has no prepared: start it with --node-config"),
        ({"store": ""}, "the node has no store: start it with --node-config"),
        ({"prepared": "/nowhere"}, "prepared=nowhere holds no prepared data"),
        ({"require_secure_aggregation": True}, "the node requires secure aggregation"),
        (
            {"max_epsilon": 8.0},
            "the node allows epsilon 8 at most, at delta .*, and the run spends inf",
        ),
        ({"plugins": "a.b"}, "is not a list of packages"),
    ],
)
def test_deployed_node_names_the_setting_that_its_owner_must_change(
    opened: Callable[..., Node], own: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opened(**own)


def local_dp(noise: float, delta: float = 1e-5) -> Job:
    """The part of a job with noise on the clients' updates."""
    return {
        "privacy": {
            "_target_": "fedrec_flower.privacy.LocalDP",
            "mechanism": "gaussian",
            "clip_norm": 1.0,
            "clipping": "flat",
            "noise_multiplier": noise,
            "target_epsilon": None,
            "delta": delta,
            "unit": "client",
        }
    }


def reports(epsilon: float, max_items: int = 3) -> Job:
    """The part of a job with randomized response and its model."""
    return {
        "privacy": {
            "_target_": "fedrec_flower.privacy.RandomizedResponse",
            "epsilon": epsilon,
            "max_items": max_items,
        },
        "model": {"_target_": "fedrec_flower.models.Popularity", "name": "popularity"},
    }


def answer(node: Node, *clients: int) -> None:
    """Let clients of a node train in round 1."""
    tables, num_items = node.model.item_rows, node.data.num_items
    given = [
        np.zeros((num_items, *value.shape[1:]) if name in tables else value.shape, np.float32)
        for name, value in ((name, node.model.get_parameter(name)) for name in node.shared_names)
    ]
    CohortClient(node, clients).train(given, {"round": 1})


@pytest.mark.parametrize(("noise", "fits"), [(5.0, True), (1.0, False), (0.0, False)])
def test_deployed_node_computes_the_epsilon_of_a_run(
    opened: Callable[..., Node], noise: float, *, fits: bool
) -> None:
    if fits:
        assert opened(local_dp(noise), max_epsilon=8.0)
        return
    with pytest.raises(ConfigError, match="the node allows epsilon 8 at most"):
        opened(local_dp(noise), max_epsilon=8.0)


def test_deployed_node_computes_epsilon_at_its_own_delta(
    opened: Callable[..., Node],
) -> None:
    """A job with delta=0.99 spent 0 of everything."""
    with pytest.raises(ConfigError, match=r"epsilon 8 at most, at delta 0\.0166667"):
        opened(local_dp(1.0, delta=0.99), max_epsilon=8.0)
    assert opened(local_dp(3.0, delta=1e-9), max_epsilon=8.0)
    with pytest.raises(ConfigError, match="epsilon 8 at most, at delta 1e-09"):
        opened(local_dp(3.0, delta=0.99), max_epsilon=8.0, max_delta=1e-9)
    with pytest.raises(ConfigError, match="max-delta=1 is impossible"):
        opened(local_dp(5.0), max_epsilon=8.0, max_delta=1.0)


def test_deployed_node_limits_the_answers_of_a_client(
    opened: Callable[..., Node],
) -> None:
    """A server that asked again got another noise for the same update, without end."""
    for _ in range(3):
        answer(opened(local_dp(5.0), max_epsilon=8.0), 3, 4)
        open_node.cache_clear()  # the node restarts
        deployed._open.cache_clear()
    node = opened(local_dp(5.0), max_epsilon=8.0)
    with pytest.raises(TrainingError, match=r"client 3 has answered 3 times.*allows 4 answers"):
        answer(node, 3, 3)
    answer(node, 3)
    with pytest.raises(TrainingError, match="client 3 has answered 4 times"):
        answer(node, 3, 5)
    answer(node, 4)
    unlimited = opened(local_dp(5.0))
    for _ in range(5):
        answer(unlimited, 3)


def test_deployed_node_rejects_other_noise_in_the_same_run(opened: Callable[..., Node]) -> None:
    assert opened(local_dp(5.0), max_epsilon=8.0)
    with pytest.raises(ConfigError, match=r"clients of the node have answered with .*5\.0"):
        opened(local_dp(6.0), max_epsilon=8.0)
    assert opened(local_dp(6.0) | {"run": "another"}, max_epsilon=8.0)
    assert opened(local_dp(6.0))


@pytest.mark.parametrize("other", [reports(2.0), reports(1.0, 4)])
def test_deployed_node_keeps_the_report_settings_in_all_runs(
    opened: Callable[..., Node], other: Job
) -> None:
    """reports with other settings have other flips, and each would spend its epsilon again."""
    assert opened(reports(1.0) | {"run": "first"}, max_epsilon=8.0)
    assert opened(reports(1.0) | {"run": "second"}, max_epsilon=8.0)
    with pytest.raises(ConfigError, match="clients of the node have answered with"):
        opened(other | {"run": "third"}, max_epsilon=8.0)
    with pytest.raises(ConfigError, match=r"the node allows epsilon 0\.5 at most"):
        opened(reports(1.0), max_epsilon=0.5)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (local_dp(5.0) | {"model": reports(1.0)["model"]}, "does not fit its model"),
        ({"privacy": reports(1.0)["privacy"]}, "does not fit its model"),
        (local_dp(5.0) | {"individual_updates": True}, "individual updates have no noise"),
        (local_dp(5.0) | {"limits": {"weight": 9.0, "value": 0.01}}, r"limits\.value=0\.01 would"),
    ],
)
def test_deployed_node_rejects_a_job_that_avoids_noise(
    opened: Callable[..., Node], changes: Job, complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        opened(changes, max_epsilon=8.0)


def test_deployed_node_rejects_a_round_after_the_last_one(opened: Callable[..., Node]) -> None:
    with pytest.raises(ConfigError, match="round 5 is asked for, and the job has 4 rounds"):
        opened({}, {"round": 5})


def test_node_rejects_a_request_for_a_client_of_another_node(opened: Callable[..., Node]) -> None:
    node = opened()
    config = ConfigRecord({"job": "", "clients": [59]})
    context = Context(1, 1, {"partition-id": 0, "num-partitions": 2}, RecordDict(), {})
    message = Message(RecordDict({"config": config}), 1, "train")
    with pytest.raises(TrainingError, match=r"client 59 is asked for, and this node hosts clients"):
        serving.train(node, message, context)


def test_node_without_partition_id_names_the_option(opened: Callable[..., Node]) -> None:
    message = Message(RecordDict({"config": ConfigRecord({"job": ""})}), 1, "query")
    with pytest.raises(ConfigError, match="no partition-id: start it with --node-config"):
        serving.query(opened(), message, Context(1, 1, {}, RecordDict(), {}))


def test_digest_of_equal_data_is_independent_of_the_folder(
    job: tuple[Job, Path], tmp_path: Path
) -> None:
    import shutil

    from fedrec_flower.data.prepared import Prepared

    copy = shutil.copytree(job[1], tmp_path / "copy")
    assert Prepared(copy).digest == job[0]["data"]
    assert np.load(copy / "user_codes.npy").size == 60


@pytest.fixture(autouse=True)
def _closed() -> Any:
    yield
    open_node.cache_clear()
    deployed._open.cache_clear()
