"""Under randomness=private no client draw follows from the seed, which the server knows."""

import base64
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.common.serde import recorddict_to_proto
from numpy.testing import assert_allclose, assert_array_equal

from fedrec_flower.core import random as seeding
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.random import Secret, Seed
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.privacy_audit import TrainedRun, run_inference
from fedrec_flower.experiment.run import run, run_quietly
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.experiment.shadow_federations import Shadows
from fedrec_flower.federation.client import node as nodes
from fedrec_flower.federation.client.state_store import SECRET_FILE, node_secret
from fedrec_flower.federation.client.update_pipeline import PrivacyStep
from fedrec_flower.privacy.statement import noise_origin
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT
from tests.helpers.interrupted_runs import go_on, interrupted

if TYPE_CHECKING:
    from tests.helpers.federations import Federate, Federated

PRIVATE = "randomness=private"
QUICK = ("num_rounds=1", "evaluation.every=1")
SECAGG = (
    "secure_aggregation=secagg",
    "strategy.aggregation=all_clients",
    "federation.num_nodes=3",
)
RUNS = {
    "finetuned, compressed": ("model=mf", "finetune_epochs=1", "compression=int8"),
    "pseudo items, masked": ("model=mf", "privacy=pseudo_items", *SECAGG),
    "silos": ("model=autoencoder", "partition=silo_random", "partition.num_clients=4"),
    "latent noise": ("model=multvae",),
    "negatives of histories": ("model=fedrecon",),
    "solved alone": ("model=ials", "strategy=local_only"),
}
CLIENTS = {
    "compression",
    "evaluation-negatives",
    "initial-personal",
    "input-dropout",
    "latent-noise",
    "negatives",
    "pseudo-items",
    "secure-rounding",
    "shuffle",
    "shuffle-users",
    "support-negatives",
}


@dataclass
class Drawn:
    """The roles of draws, by the origin of the draws."""

    by_seed: set[str] = field(default_factory=set)
    by_secret: set[str] = field(default_factory=set)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Drawn:
    """Every draw of the package is seen, wherever its function was imported to."""
    seen = Drawn()

    def watched(real: Any) -> Any:
        def watch(seed: Seed, role: str, *rest: Any, **named: Any) -> Any:
            if not isinstance(seed, Secret):
                seen.by_seed.add(role)
            return real(seed, role, *rest, **named)

        return watch

    for real in (seeding.generator, seeding.streams):
        for name, module in list(sys.modules.items()):
            if name.startswith("fedrec_flower") and getattr(module, real.__name__, None) is real:
                monkeypatch.setattr(module, real.__name__, watched(real))
    told = Secret.at

    def at(self: Secret, purpose: str, role: str, round_: int, client: int = 0) -> bytes:
        seen.by_secret.add(role)
        return told(self, purpose, role, round_, client)

    monkeypatch.setattr(Secret, "at", at)
    return seen


@pytest.fixture
def one_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes of all runs have the same secret."""
    monkeypatch.setattr(nodes, "node_secret", lambda _: Secret(bytes(range(32))))


@pytest.fixture
def no_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than a run this small."""
    monkeypatch.setattr("fedrec_flower.experiment.artifacts._draw", lambda *_: None)


def sent(ran: "Federated") -> dict[str, bytes]:
    """The arrays of the nodes' train replies, by name."""
    replies = [m for m in ran.tap.replies if m.metadata.message_type.startswith("train")]
    return {
        f"{place}/{name}": array.numpy().tobytes()
        for place, reply in enumerate(replies)
        for record in reply.content.array_records.values()
        for name, array in record.items()
    }


def scene(ran: "Federated") -> TrainedRun:
    """The observations of an attack."""
    initial = ran.setup.initial(ran.strategy)
    shadows = Shadows(ran.config, ran.setup.data, run_quietly)
    told = (ran.setup.data, ran.setup.privacy_setup, ran.server, ran.outcome, initial, ran.store)
    return TrainedRun(*told, shadows)


# --- the finding: the seed in the job is a trapdoor ---------------------------------------------


def test_the_seed_in_the_job_determines_no_draw_of_a_client(
    federate: "Federate", drawn: Drawn
) -> None:
    """The server knows no draw of a client."""
    for words in RUNS.values():
        federate(*QUICK, *words, PRIVATE)
        assert not drawn.by_seed & CLIENTS, words
    # Every such draw occurred, so the checks above were not vacuous.
    assert drawn.by_secret == CLIENTS
    drawn.by_secret.clear()
    federate(*QUICK, *RUNS["finetuned, compressed"])
    assert not drawn.by_secret
    assert {"negatives", "shuffle", "initial-personal"} < drawn.by_seed


@pytest.mark.parametrize("name", ["finetuned, compressed", "negatives of histories"])
def test_two_secrets_under_one_seed_give_other_updates_and_the_same_server(
    federate: "Federate", name: str
) -> None:
    """The server knows no draw of a client."""
    words = (*QUICK, *RUNS[name], PRIVATE, "clients_per_round=9")
    one, other = federate(*words), federate(*words)
    mine, theirs = sent(one), sent(other)
    assert mine.keys() == theirs.keys()
    tables = [key for key in mine if "item" in key]
    assert tables
    assert not [key for key in tables if mine[key] == theirs[key]]
    participated = one.outcome.rounds_participated
    assert_array_equal(participated, other.outcome.rounds_participated)
    for tensor, value in one.setup.initial(one.strategy).items():
        assert_array_equal(value, other.setup.initial(other.strategy)[tensor])
    assert one.job.seed == other.job.seed


def test_no_message_contains_the_secret(federate: "Federate") -> None:
    """The server knows no draw of a client."""
    for words in (RUNS["finetuned, compressed"], RUNS["pseudo items, masked"]):
        ran = federate(*QUICK, *words, PRIVATE)
        secret = (ran.store / SECRET_FILE).read_bytes()
        forms = [secret, secret.hex().encode(), base64.b64encode(secret)]
        for message in ran.tap.asked + ran.tap.replies:
            wire = recorddict_to_proto(message.content).SerializeToString()
            assert not [form for form in forms if form in wire]
        state = "".join(repr(context.state) for context in ran.tap.contexts)
        assert secret.hex() not in state


def test_the_noise_of_a_private_run_comes_from_the_operating_system(federate: "Federate") -> None:
    """The server knows no draw of a client."""
    ran = federate(*QUICK, "model=mf", "privacy=pseudo_items", PRIVATE)
    trainer: Any = ran.open_node().trainer
    (step,) = [step for step in trainer.pipeline.steps if isinstance(step, PrivacyStep)]
    for chance in (ran.setup.privacy_setup.noise_source, step.noise_source):
        one, again = (chance.stream("noise", 1, 2).normal((4,)) for _ in "ab")
        assert not np.intersect1d(one, again).size
        assert noise_origin(chance) == "from the operating system's generator"


def test_pseudo_items_stay_the_same_in_every_round_of_a_private_run(federate: "Federate") -> None:
    """The server knows no draw of a client."""
    ran = federate("model=mf", "privacy=pseudo_items", PRIVATE)
    trainer: Any = ran.open_node().trainer
    data = ran.setup.data.client(3)
    step = trainer.pipeline.steps[0]
    first, later = (step.on_data(data, None) for _ in "ab")
    assert len(first.train.item) == 2 * len(data.train.item)
    assert_array_equal(first.train.item, later.train.item)


# --- laws that private runs keep ----------------------------------------------------------------


@pytest.mark.usefixtures("one_secret")
@pytest.mark.parametrize("change", ["federation.num_nodes=5", "training.engine=sequential"])
@pytest.mark.parametrize("model", ["mf", "multvae"])
def test_given_one_secret_hosting_and_engines_change_nothing(
    federate: "Federate", model: str, change: str
) -> None:
    """The server knows no draw of a client."""
    nodes_and_engine = ("federation.num_nodes=1", "training.engine=vectorized")
    words = (*QUICK, f"model={model}", PRIVATE, *nodes_and_engine)
    one, other = federate(*words), federate(*words, change)
    for ours, theirs in ((one.shared, other.shared), (one.personal, other.personal)):
        for name, tensor in ours.items():
            assert_allclose(theirs[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.usefixtures("one_secret")
def test_the_same_secret_repeats_a_private_run(federate: "Federate") -> None:
    one, again = (federate("model=mf", PRIVATE) for _ in "ab")
    assert sent(one) == sent(again)


@pytest.mark.usefixtures("no_figures")
def test_an_interrupted_private_run_resumes_with_its_secret(tmp_path: Path) -> None:
    words = ["experiment=smoke", PRIVATE, "checkpoint_every=1", "num_rounds=3"]
    words += [f"dataset.cache_dir={tmp_path / 'cache'}"]
    interrupted(words, tmp_path / "rest", 5)
    secret = (tmp_path / "rest" / "clients" / SECRET_FILE).read_bytes()
    go_on(words, tmp_path / "rest")
    summary = json.loads((tmp_path / "rest" / "summary.json").read_text())
    assert summary["resumed_after"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nodes, "node_secret", lambda _: Secret(secret))
        run(compose(words)[0], RunFolder.create(tmp_path / "whole"))
    for name in ("rounds.csv", "model.safetensors", "recommendations.csv"):
        whole, rest = ((tmp_path / way / name).read_bytes() for way in ("whole", "rest"))
        assert whole == rest, name


def test_the_replayed_round_uses_the_secret_of_the_run(federate: "Federate") -> None:
    ran = federate("model=mf", "attack=interaction_inference", *QUICK, PRIVATE)
    with scene(ran).replay_round(1, with_history=False) as played:
        total = played.whole.seen["item_embedding.weight"]
    (reply,) = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    update = reply.content.array_records["update"]["item_embedding.weight"].numpy()
    touched = total[np.any(total != 0, axis=1)]
    assert_allclose(np.sort(update.ravel()), np.sort(touched.ravel()), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("randomness", ["seeded", "private"])
def test_an_attack_on_a_seeded_run_states_that_the_server_has_the_seed(
    federate: "Federate", randomness: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server knows no draw of a client."""
    ran = federate("model=mf", "attack=interaction_inference", *QUICK, f"randomness={randomness}")
    with caplog.at_level("INFO", "fedrec_flower"):
        found = run_inference(ran.setup.attack, scene(ran))["attack"]
    assert (found.get("randomness") == SEEDED_CAVEAT) == (randomness == "seeded")
    assert (SEEDED_CAVEAT in caplog.text) == (randomness == "seeded")


# --- statements and refusals of a run -----------------------------------------------------------


@pytest.mark.parametrize("randomness", ["seeded", "private"])
def test_masks_with_a_known_seed_are_logged(
    federate: "Federate", randomness: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The server knows no draw of a client."""
    with caplog.at_level("WARNING", "fedrec_flower"):
        federate("num_rounds=0", "model=mf", *SECAGG, f"randomness={randomness}")
    assert ("can separate masked sums" in caplog.text) == (randomness == "seeded")


@pytest.mark.usefixtures("no_figures")
def test_a_run_states_its_randomness_and_leaves_no_secret(tmp_path: Path) -> None:
    words = ["experiment=smoke", f"dataset.cache_dir={tmp_path / 'cache'}", "num_rounds=1"]
    for randomness in ("seeded", "private"):
        folder = RunFolder.create(tmp_path / randomness)
        summary = run(compose([*words, f"randomness={randomness}"])[0], folder)
        assert summary["randomness"] == randomness
        assert not (folder.path / "clients" / SECRET_FILE).exists()


def test_another_randomness_is_refused(federate: "Federate") -> None:
    with pytest.raises(ConfigError, match=r"randomness='secret' is of a wrong kind: .*'private'"):
        federate("randomness=secret")


def test_an_unknown_randomness_in_a_job_is_private(federate: "Federate") -> None:
    """The server knows no draw of a client."""
    ran = federate(*QUICK, "model=mf")
    node = ran.open_node(store=ran.store / "other", randomness="whatever")
    assert isinstance(node.seed, Secret)
    assert isinstance(node_secret(ran.store / "other"), Secret)
