"""A resumed run ends with the same files as an uninterrupted one."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.core.errors import DataError
from fedrec_flower.core.random import generator
from tests.helpers.interrupted_runs import (
    MODELS,
    ROUNDS,
    go_on,
    interrupted,
    kinds,
    last_checkpoint,
    require_same,
    uninterrupted,
)

if TYPE_CHECKING:
    from tests.integration.conftest import MakeRun

# Messages to a node: a query, an evaluation of the untrained, then for rounds 1 to 9 training
# and every third evaluation, and snapshots for the checkpoints between.
ALL = 1 + 1 + 9 + 3 + 3 + 1
SLOW = pytest.mark.slow  # `equivalence/test_resuming` runs them all, without tables and figures


@pytest.mark.parametrize(
    "model", [pytest.param(m, marks=() if m == "pfedrec" else SLOW) for m in MODELS]
)
def test_resumed_run_equals_an_uninterrupted_run(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, model: str
) -> None:
    words = [*smoke, *MODELS[model], *ROUNDS, "federation.num_nodes=1"]
    whole = uninterrupted(make_run, tuple(words))
    moment = int(generator(1, "interruption", 0, len(model)).integers(6, ALL - 1))
    interrupted(words, tmp_path / "run", moment)
    began_after = last_checkpoint(tmp_path / "run")
    assert began_after >= 2
    tap = go_on(words, tmp_path / "run")
    require_same(whole, tmp_path / "run")
    assert kinds(tap).count("train") == 9 - began_after
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["resumed_after"] == [began_after]
    assert json.loads((whole / "summary.json").read_text())["resumed_after"] == []


def test_run_can_be_resumed_several_times(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "fedrec_flower")
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    whole, folder = uninterrupted(make_run, tuple(words)), tmp_path / "run"
    interrupted(words, folder, 1)  # before the first checkpoint
    for _ in range(3):  # one checkpoint further each time
        with pytest.raises(KeyboardInterrupt):
            go_on(words, folder, messages=5)
    go_on(words, folder)
    require_same(whole, folder)
    told = [m for m in caplog.messages if "contains this run" in m]
    assert told[0] == f"{folder} contains this run, without a checkpoint: started again"
    assert told[1] == f"{folder} contains this run, unfinished: resumed after round 2"
    seconds = json.loads((folder / "summary.json").read_text())["seconds"]
    assert seconds["total"] >= seconds["setup"] + seconds["train"] + seconds["evaluate"] - 1e-6


def test_run_interrupted_after_its_last_round_only_evaluates(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", ALL - 1)
    tap = go_on(words, tmp_path / "run")
    assert kinds(tap) == ["query", "evaluate"]
    require_same(uninterrupted(make_run, tuple(words)), tmp_path / "run")


def test_resume_with_a_damaged_checkpoint_uses_the_previous_one(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    folder = tmp_path / "run"
    interrupted(words, folder, ALL - 2)
    last = folder / "checkpoints" / "round-8.checkpoint"
    last.write_bytes(last.read_bytes()[:-1] + b"?")
    tap = go_on(words, folder)
    assert f"{last} is damaged, so the previous checkpoint is used" in caplog.messages[0]
    assert kinds(tap).count("train") == 9 - 6
    require_same(uninterrupted(make_run, tuple(words)), folder)


@pytest.mark.slow
def test_resume_without_a_valid_checkpoint_starts_again(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    folder = tmp_path / "run"
    interrupted(words, folder, ALL - 2)
    (folder / "clients" / "current").rename(tmp_path / "current")
    for slot in (folder / "clients").iterdir():
        shutil.rmtree(slot)
    tap = go_on(words, folder)
    assert len(caplog.messages) >= 2
    assert kinds(tap).count("train") == 9
    require_same(uninterrupted(make_run, tuple(words)), folder)


def test_resume_with_other_data_is_an_error(smoke: tuple[str, ...], tmp_path: Path) -> None:
    words = [*smoke, *ROUNDS, "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", ALL - 2)
    with pytest.raises(DataError, match="was started with other data"):
        go_on([*words, "dataset.seed=8"], tmp_path / "run")


@pytest.mark.slow
def test_resume_without_checkpoints_starts_again(
    make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = [*smoke, *ROUNDS, "checkpoint_every=null", "federation.num_nodes=1"]
    interrupted(words, tmp_path / "run", 12)
    assert not (tmp_path / "run" / "checkpoints").exists()
    tap = go_on(words, tmp_path / "run")
    assert kinds(tap).count("train") == 9
    require_same(uninterrupted(make_run, tuple(words)), tmp_path / "run")


def test_checkpoints_do_not_change_results(make_run: "MakeRun", smoke: tuple[str, ...]) -> None:
    words = [*smoke, *MODELS["mf"], *ROUNDS, "federation.num_nodes=1"]
    often = uninterrupted(make_run, tuple(words))
    require_same(often, make_run("checkpoint_every=null", base=words).folder)
