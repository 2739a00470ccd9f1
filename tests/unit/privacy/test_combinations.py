"""Laws of messages and publications under privacy: other values reveal no data or are listed."""

import logging
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from flwr.app import Message

from fedrec_flower.core.errors import ConfigError, DataError, TrainingError
from fedrec_flower.core.updates import ROW_WEIGHT, UpdateSum
from fedrec_flower.data.interactions import Part
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import prepare_data, run, set_up
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.federation.client.deployed import app as deployed_app
from fedrec_flower.federation.transport.in_process import InProcessGrid
from fedrec_flower.privacy.local import LocalDP
from fedrec_flower.privacy.noise import NoiseSource
from fedrec_flower.privacy.randomized_response import RandomizedResponse
from fedrec_flower.training.cohort import Cohort
from fedrec_flower.training.negative_sampling import Sampler
from tests.helpers.federations import SMALL, SMALL_RANKING, SMALL_STRATEGY, _configured

if TYPE_CHECKING:
    from tests.helpers.federations import Federate

ALONE = "federation.num_nodes=24"  # a node is one client
BOUND = ("privacy.target_epsilon=null", "privacy.noise_multiplier=1.0", "privacy.clip_norm=0.1")
ALL = ("model=mf", "strategy.aggregation=all_clients", "num_rounds=1")
CENTRAL = (*ALL, "privacy=central_dp", "min_completion=0.0", *BOUND)
LOCAL = (*ALL, "privacy=local_dp", *BOUND)
LIES = ("model=popularity", "privacy=randomized_response", "num_rounds=1")
MECHANISMS = pytest.mark.parametrize(
    "mechanism", [CENTRAL, LOCAL, LIES], ids=["central", "local", "response"]
)


def extra_tensors(reply: Message) -> dict[str, Any]:
    """Everything that a training reply holds but the protected values, comparable."""
    content = reply.content
    arrays = {n: array.numpy() for n, array in content.array_records["update"].items()}
    return {
        "metrics": {n: str(value) for n, value in content.metric_records["metrics"].items()},
        "lost": dict(content.config_records["lost"]),
        "num_rows": dict(content.config_records["num_rows"]),
        "shapes": {n: (array.shape, str(array.dtype)) for n, array in arrays.items()},
        "row_weight": arrays[ROW_WEIGHT].tolist(),
        "records": sorted(content),
    }


def trained(replies: list[Message]) -> list[dict[str, Any]]:
    return [extra_tensors(r) for r in replies if r.metadata.message_type == "train"]


@MECHANISMS
def test_only_protected_values_depend_on_the_data(
    federate: "Federate", mechanism: tuple[str, ...]
) -> None:
    """No value that depends on data leaves a node without noise."""
    # A regression: each noisy update had a loss without noise.
    ran = federate(*mechanism, ALONE)
    replies = trained(ran.tap.replies)
    assert len(replies) == 24 or mechanism is CENTRAL  # Poisson sampling
    if mechanism is LIES:  # the number of reported items is protected by flips
        replies = [{**r, "metrics": {**r["metrics"], "num_examples": ""}} for r in replies]
    assert all(reply == replies[0] for reply in replies)
    assert np.isnan(ran.watcher.losses[1])


@pytest.mark.parametrize("mechanism", [CENTRAL, LOCAL], ids=["central", "local"])
def test_a_client_that_diverges_is_not_reported_lost(
    federate: "Federate", mechanism: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """No value that depends on data leaves a node without noise."""
    beyond = "training.learning_rate=1e30"
    with caplog.at_level(logging.WARNING):
        ran = federate(*mechanism, ALONE, beyond, "training.local_epochs=3")
    replies = trained(ran.tap.replies)
    assert "not finite" in caplog.text
    assert {reply["metrics"]["replied"] for reply in replies} == {"1"}
    assert ran.watcher.lost[1] == {}
    with pytest.raises(TrainingError, match="no client's loss is finite"):  # without privacy it is
        federate("model=mf", "num_rounds=1", beyond, "training.local_epochs=3")


def test_a_client_without_data_sends_noise_like_any_other(federate: "Federate") -> None:
    """No value that depends on data leaves a node without noise."""
    ran = federate(*LOCAL, ALONE, "split=cold_users")
    assert (ran.setup.data.num_examples == 0).any()
    replies = [m for m in ran.tap.replies if m.metadata.message_type == "train"]
    assert len(replies) == 24
    assert all(extra_tensors(reply) == extra_tensors(replies[0]) for reply in replies)
    sent = [m.content.array_records["update"]["item_embedding.weight"].numpy() for m in replies]
    assert all(value.all() for value in sent)


def refuse_to_train(patch: pytest.MonkeyPatch, client: int) -> None:
    """Training raises wherever it meets the data of one client."""
    negatives = Sampler.negatives

    def meet(self: Sampler, cohort: Cohort, round_: int, epoch: int) -> Any:
        if cohort.num_examples[cohort.clients == client].any():
            raise DataError("a user has interacted with all 60 items")
        return negatives(self, cohort, round_, epoch)

    patch.setattr(Sampler, "negatives", meet)


@pytest.mark.parametrize("nodes", [ALONE, "federation.num_nodes=1"], ids=["alone", "together"])
def test_an_error_that_depends_on_the_data_stays_on_a_node_under_local_privacy(
    federate: "Federate",
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    nodes: str,
) -> None:
    """No value that depends on data leaves a node without noise."""
    # Before, one client with the whole catalogue ended the run, and the server read why.
    fair = federate(*LOCAL, nodes)
    with monkeypatch.context() as patch:
        refuse_to_train(patch, 5)
        ran = federate(*LOCAL, nodes)
        with pytest.raises(DataError, match="all 60 items"):
            federate("model=mf", "num_rounds=1")
    assert "training of client 5 failed; it sends a zero update" in caplog.text
    assert trained(ran.tap.replies) == trained(fair.tap.replies)
    changed = [
        place
        for place, (one, other) in enumerate(zip(ran.tap.replies, fair.tap.replies, strict=True))
        if one.metadata.message_type == "train"
        and any(
            one.content.array_records["update"][name].numpy().tobytes() != array.numpy().tobytes()
            for name, array in other.content.array_records["update"].items()
        )
    ]
    assert len(changed) == 1


@pytest.mark.parametrize("mechanism", [LOCAL, LIES], ids=["local", "response"])
def test_an_error_message_reveals_no_data_under_local_privacy(
    federate: "Federate", monkeypatch: pytest.MonkeyPatch, mechanism: tuple[str, ...]
) -> None:
    """No value that depends on data leaves a node without noise."""

    def fail(*_: object, **__: object) -> None:
        raise ValueError("item 7 of user 3")

    monkeypatch.setattr(LocalDP, "apply", fail)
    monkeypatch.setattr(RandomizedResponse, "training_data", fail)
    with pytest.raises(TrainingError, match="read the log of the node for the reason") as told:
        federate(*mechanism)
    assert "item 7" not in str(told.value)
    assert told.value.__cause__ is None
    assert told.value.__context__ is None


def test_a_user_with_the_whole_catalogue_is_rejected_before_the_first_round(
    tmp_path: Path,
) -> None:
    rows = [
        f"{u},{(u + i) % 24},{30 * u + i}" for u in range(24) for i in range(24 if not u else 8)
    ]
    (tmp_path / "met.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    file = ("dataset=file", f"dataset.path={tmp_path / 'met.csv'}", "dataset.columns.rating=null")
    more = ("evaluation.num_negatives=0", f"dataset.cache_dir={tmp_path}", "federation=in_process")
    set_up(compose([*file, *more])[0], RunFolder.create(tmp_path / "honest"))
    config, _ = compose([*file, *more, "split.negatives=legacy"])
    with pytest.raises(ConfigError, match="interacted with all 24 items, so no negative exists"):
        set_up(config, RunFolder.create(tmp_path / "legacy"))


def test_a_repeated_round_has_new_noise() -> None:
    # Before, seeded noise was repeated: the difference of two messages was free of it.
    privacy = LocalDP("gaussian", 1.0, "flat", 1.0, None, 1e-3, "user")

    def noise(attempt: int) -> np.ndarray[Any, Any]:
        total = UpdateSum.zeros({"bias": (5,)}, 0)
        privacy.add_noise(total, np.array([3]), 1, NoiseSource(1), attempt)
        return total.tensors["bias"]

    assert not np.isclose(noise(0), noise(1)).any()
    assert not np.isclose(noise(1), noise(2)).any()


@MECHANISMS
def test_updates_one_by_one_are_refused_where_noise_is_on_sums(
    federate: "Federate", mechanism: tuple[str, ...]
) -> None:
    """No value that depends on data leaves a node without noise."""
    if mechanism is LIES:
        return
    ran = federate(*mechanism)
    from fedrec_flower.federation.client.cohort_client import CohortClient

    node = ran.open_node(individual_updates=True)
    given = [ran.shared[name] for name in node.shared_names]
    with pytest.raises(ConfigError, match="privacy protects their sum"):
        CohortClient(node, [0]).train(given, {"round": 1})


def test_a_deadline_that_reveals_activity_is_rejected(federate: "Federate") -> None:
    """No value that depends on data leaves a node without noise."""
    with pytest.raises(ConfigError, match=r"set faults.deadline=null"):
        federate(*LOCAL, "faults=custom", "faults.deadline=400.0")


# --- the released round -------------------------------------------------------------------------

NOISY = (*LOCAL[:1], LOCAL[1], "privacy=local_dp", *BOUND, "evaluation.every=1", "num_rounds=3")
AWAY = "strategy.server_learning_rate=-3.0"  # each round is worse than the one before


def test_under_privacy_the_last_round_is_released(federate: "Federate") -> None:
    """Under privacy the released round does not follow from exact validation."""
    last = federate(*NOISY, ALONE)
    assert last.outcome.selected.round == 3
    chosen = federate(*NOISY, ALONE, "release=validation")
    valued = {r: m[Part.VALIDATION]["ndcg@10"] for r, m in chosen.watcher.metrics.items()}
    assert chosen.outcome.selected.round == max(valued, key=lambda r: (valued[r], -r))
    lists = [ran.outcome.privacy["privacy"]["does_not_cover"] for ran in (last, chosen)]
    named = [any("choice of the released round" in entry for entry in said) for said in lists]
    assert named == [False, True]


def test_without_privacy_validation_chooses_the_round(federate: "Federate") -> None:
    """Under privacy the released round does not follow from exact validation."""
    plain = ("model=mf", "evaluation.every=1", "num_rounds=3")
    assert federate(*plain).setup.plan.release == "validation"
    assert federate(*plain, "release=last").outcome.selected.round == 3


def test_patience_is_refused_where_the_last_round_is_released(federate: "Federate") -> None:
    """Under privacy the released round does not follow from exact validation."""
    with pytest.raises(ConfigError, match="set patience=null, or release=validation"):
        federate(*NOISY, "patience=2")
    assert federate(*NOISY, "patience=2", "release=validation").setup.plan.patience == 2


@MECHANISMS
def test_uncovered_values_are_listed_one_by_one(
    federate: "Federate", mechanism: tuple[str, ...]
) -> None:
    """No value that depends on data leaves a node without noise."""
    named = " ".join(federate(*mechanism).outcome.privacy["privacy"]["does_not_cover"])
    for value in ("metrics", "clients.csv", "split_sha256", "times", "attack", "hyper-parameters"):
        assert value in named
    for value in ("lost replies", "bytes.total", "rounds_participated", "warnings in the log"):
        assert value in named
    assert ("evaluation sums that each node sends" in named) == (mechanism is not CENTRAL)
    assert "loss" not in named  # no loss is published


def test_poisson_cohorts_are_not_published(
    federate: "Federate", caplog: pytest.LogCaptureFixture
) -> None:
    # Before, rounds.csv held the size of each cohort, and warnings the clients in it.
    def one_is_silent(asked: list[Message], replies: list[Message]) -> list[Message]:
        return replies[asked[0].metadata.message_type == "train" :]

    told = []
    for mechanism in (CENTRAL, ALL):
        caplog.clear()
        words = ("clients_per_round=12", "num_rounds=2", "min_completion=0.0")
        ran = federate(*mechanism, ALONE, *words, meddle=one_is_silent)
        said = {record.getMessage() for record in caplog.records}
        told.append((ran.watcher.replied, {words for words in said if "left out" in words}))
        asked = [m for m in ran.tap.asked if m.metadata.message_type == "train"]
        sizes = Counter(m.content.config_records["config"]["round"] for m in asked)
        assert (sizes == {1: 12, 2: 12}) == (mechanism is ALL)
    private, plain = told
    why = "1 of the clients: silent: its node did not answer in time"
    assert private == ({1: 12, 2: 12}, {f"round {r}: left out {why}" for r in (1, 2)})
    assert plain[0] == {1: 11, 2: 11}
    assert all("left out client " in message for message in plain[1])


def test_values_that_masks_do_not_hide_are_listed_one_by_one(federate: "Federate") -> None:
    """No value that depends on data leaves a node without noise."""
    masked = ("secure_aggregation=secagg", "federation.num_nodes=8", "num_rounds=1")
    setup = federate("model=mf", "strategy.aggregation=all_clients", *masked).setup
    named = " ".join(setup.facts()["secure_aggregation"]["does_not_cover"])
    for value in ("losses", "weights", "lost", "evaluation sums", "arrive", "sizes", "metrics"):
        assert value in named
    assert "secure_aggregation" not in federate("model=mf", "num_rounds=1").setup.facts()


# --- deployed -----------------------------------------------------------------------------------


def deployed(folder: Path, cache: Path, *words: str) -> dict[str, Any]:
    """The summary of a run over an existing grid."""
    small = [w for w in SMALL if "embedding_dim" not in w or "model=mf" in words]
    by_strategy = SMALL_STRATEGY if "model=mf" in words else ()
    more = (*by_strategy, *SMALL_RANKING, f"dataset.cache_dir={cache}")
    config = _configured(["federation=deployment", *small[1:], *more, *words])
    own = {"prepared": str(prepare_data(config).path), "store": str(folder / "nodes")}
    return run(config, RunFolder.create(folder), grid=InProcessGrid(deployed_app, 24, own))


@pytest.mark.parametrize("mechanism", [LOCAL, LIES], ids=["local", "response"])
def test_a_deployed_node_under_local_privacy_sends_no_exact_evaluation_sums(
    tmp_path: Path, mechanism: tuple[str, ...]
) -> None:
    """No value that depends on data leaves a node without noise."""
    # Before, a node with one client sent the rank of its held-out item without noise.
    summary = deployed(tmp_path / "run", tmp_path / "cache", *mechanism)
    assert summary["status"] == "completed"
    assert summary["selected_round"] == 1
    assert summary["validation"] == summary["test"] == {}
    assert (tmp_path / "run" / "model.safetensors").exists()
    assert not (tmp_path / "run" / "per_user.csv").exists()
    assert "evaluation metrics" not in " ".join(summary["privacy"]["does_not_cover"])


def test_a_deployed_node_under_local_privacy_refuses_evaluation(federate: "Federate") -> None:
    """No value that depends on data leaves a node without noise."""
    from fedrec_flower.federation.client.cohort_client import CohortClient

    ran = federate(*LOCAL)
    node = ran.open_node(deployed=True)
    given = [ran.shared[name] for name in node.shared_names]
    with pytest.raises(TrainingError, match="sends none"):
        CohortClient(node, [0]).evaluate(given, {"slot": "current", "note": False})
    assert CohortClient(node, []).evaluate(given, {"slot": "current", "note": False})[1] == 0


def test_a_deployed_run_under_local_privacy_cannot_choose_by_validation(tmp_path: Path) -> None:
    """Under privacy the released round does not follow from exact validation."""
    with pytest.raises(ConfigError, match="set release=last"):
        deployed(tmp_path / "run", tmp_path / "cache", *LOCAL, "release=validation")


# --- the catalogue ------------------------------------------------------------------------------


def test_a_catalogue_from_interactions_is_listed_and_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An item that one user alone had is not published, or is named."""
    rows = [f"{u},{(u + i) % 24},{10 * u + i}" for u in range(24) for i in range(8)]
    (tmp_path / "met.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (tmp_path / "items.csv").write_text("item_id\n" + "\n".join(map(str, range(60))) + "\n")
    file = ("dataset=file", f"dataset.path={tmp_path / 'met.csv'}", "dataset.columns.rating=null")
    here = ("evaluation.num_negatives=0", f"dataset.cache_dir={tmp_path}")
    listed = (f"dataset.items_path={tmp_path / 'items.csv'}", "dataset.catalogue=items")
    told = {}
    for name, more in {"met": (), "listed": listed}.items():
        caplog.clear()
        config, _ = compose([*LOCAL, *file, *here, *more])
        setup = set_up(config, RunFolder.create(tmp_path / name))
        setup.privacy_setup.check(setup.server(config).strategy)
        named = " ".join(setup.curator.facts()["privacy"]["does_not_cover"])
        told[name] = ("the catalogue is made from the items" in caplog.text, "item ids" in named)
        assert setup.data.num_items == (60 if more else 24)
    assert told == {"met": (True, True), "listed": (False, False)}
