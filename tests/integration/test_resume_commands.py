"""Resuming a run on the command line with `resume=FOLDER`."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment import composition
from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import run
from fedrec_flower.experiment.run_folder import RunFolder
from tests.helpers.federations import Tap
from tests.helpers.interrupted_runs import ROUNDS, Interrupted, last_checkpoint

if TYPE_CHECKING:
    from tests.integration.conftest import Command


@pytest.fixture(scope="module")
def begun(smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted by Ctrl-C, with the configuration of the command line."""
    words = [*smoke, *ROUNDS, "num_rounds=5"]
    config, text = compose(words)[0], composition.config_yaml(composition.compose_unresolved(words))
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, text), Tap(1, Interrupted(9)))
    assert last_checkpoint(folder) == 4
    return folder


@pytest.fixture
def unfinished(begun: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return shutil.copytree(begun, tmp_path / "unfinished")


def test_resume_continues_a_run(command: "Command", unfinished: Path) -> None:
    configuration = (unfinished / "config.yaml").read_text()
    told = json.loads((unfinished / "summary.json").read_text())["overrides"]
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: resumed after round 4" in ended.err
    assert ended.out.splitlines()[-1] == "unfinished"
    summary = json.loads((unfinished / "summary.json").read_text())
    assert (summary["status"], summary["resumed_after"]) == ("completed", [4])
    assert summary["overrides"] == told
    assert (unfinished / "config.yaml").read_text() == configuration
    assert {path.name for path in unfinished.parent.iterdir()} == {"unfinished"}


def test_resume_accepts_new_failure_limits(command: "Command", unfinished: Path) -> None:
    ended = command("resume=unfinished", "min_completion=0.1", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: resumed after round 4" in ended.err
    assert "min_completion: 0.1\n" in (unfinished / "config.yaml").read_text()


def test_resume_of_a_completed_run_changes_nothing(command: "Command", unfinished: Path) -> None:
    command("resume=unfinished", cwd=unfinished.parent)
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0
    assert "completed: not run again" in ended.err
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def test_resume_accepts_any_folder_name(command: "Command", unfinished: Path) -> None:
    name = "ä 'folder', {with} [odd=signs]"
    unfinished.rename(unfinished.parent / name)
    ended = command(f"resume={name}", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == name


@pytest.mark.parametrize("word", ["model=ncf", "num_rounds=9", "-m", "--cfg=job"])
def test_resume_rejects_other_arguments(command: "Command", unfinished: Path, word: str) -> None:
    said_ = command("resume=unfinished", word, cwd=unfinished.parent).sentence()
    assert said_ == ("resume=unfinished uses the configuration of that folder: leave out " + word)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_resume_of_a_folder_without_a_run_is_an_error(
    command: "Command", tmp_path: Path, folder: str
) -> None:
    said_ = command(f"resume={folder}", cwd=tmp_path).sentence()
    assert said_.startswith(
        f"resume={folder} is no run folder (it has no config.yaml): give the folder"
    )


def test_resume_null_starts_a_new_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ended = command(*smoke, "resume=null", "num_rounds=0", "output_dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err


def test_compose_rejects_resume() -> None:
    with pytest.raises(ConfigError, match=r"resume= works on the command line only"):
        compose(["resume=somewhere"])


def test_sweep_resumes_an_unfinished_job(
    command: "Command", smoke: tuple[str, ...], unfinished: Path
) -> None:
    sweep = unfinished.parent / "sweep"
    sweep.mkdir()
    unfinished.rename(sweep / "0")
    # With fewer checkpoints: they change no number, so it is the same run.
    words = (*smoke, *ROUNDS, "num_rounds=5", "checkpoint_every=4", "seed=1,2")
    ended = command("-m", *words, f"output_dir={sweep}")
    assert ended.code == 0, ended.err
    assert "unfinished: resumed after round 4" in ended.err
    after = [json.loads((sweep / job / "summary.json").read_text()) for job in "01"]
    assert [summary["resumed_after"] for summary in after] == [[4], []]
    assert {summary["status"] for summary in after} == {"completed"}


@pytest.mark.parametrize(
    ("word", "mend"),
    [
        ("checkpoint_every=0", "checkpoint_every=0 is impossible: give 1 or more"),
        ("patience=0", "patience=0 is impossible: give 1 or more"),
        ("checkpoint_every=often", "checkpoint_every=often is of a wrong kind"),
    ],
)
def test_impossible_checkpoint_value_is_one_error(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, word: str, mend: str
) -> None:
    assert command(*smoke, word, "output_dir=run", cwd=tmp_path).sentence().startswith(mend)
