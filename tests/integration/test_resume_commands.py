"""Going on with a run by the command line: one word, and what it refuses."""

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
    """A run as Ctrl-C leaves it, its configuration as the command line writes it."""
    words = [*smoke, *ROUNDS, "num_rounds=5"]
    config, text = compose(words)[0], composition.config_yaml(composition.compose_unresolved(words))
    folder = tmp_path_factory.mktemp("begun")
    with pytest.raises(KeyboardInterrupt):
        run(config, RunFolder.create(folder, text), Tap(1, Interrupted(9)))
    assert last_checkpoint(folder) == 4
    return folder


@pytest.fixture
def unfinished(begun: Path, tmp_path: Path) -> Path:
    """A copy of it, to be gone on with."""
    return shutil.copytree(begun, tmp_path / "unfinished")


def test_one_word_goes_on_with_a_run_and_says_so(command: "Command", unfinished: Path) -> None:
    configuration = (unfinished / "config.yaml").read_text()
    told = json.loads((unfinished / "summary.json").read_text())["overrides"]
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
    assert ended.out.splitlines()[-1] == "unfinished"
    summary = json.loads((unfinished / "summary.json").read_text())
    assert (summary["status"], summary["resumed_after"]) == ("completed", [4])
    assert summary["overrides"] == told
    assert (unfinished / "config.yaml").read_text() == configuration
    assert {path.name for path in unfinished.parent.iterdir()} == {"unfinished"}


def test_who_gave_up_may_be_told_to_be_patient(command: "Command", unfinished: Path) -> None:
    ended = command("resume=unfinished", "min_completion=0.1", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
    assert "min_completion: 0.1\n" in (unfinished / "config.yaml").read_text()


def test_a_finished_run_says_so_and_is_left_as_it_is(command: "Command", unfinished: Path) -> None:
    command("resume=unfinished", cwd=unfinished.parent)
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    ended = command("resume=unfinished", cwd=unfinished.parent)
    assert ended.code == 0
    assert "finished: not run again" in ended.err
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def test_a_folder_may_have_any_name(command: "Command", unfinished: Path) -> None:
    name = "ä 'folder', {with} [odd=signs]"
    unfinished.rename(unfinished.parent / name)
    ended = command(f"resume={name}", cwd=unfinished.parent)
    assert ended.code == 0, ended.err
    assert ended.out.splitlines()[-1] == name


@pytest.mark.parametrize("word", ["model=ncf", "num_rounds=9", "-m", "--cfg=job"])
def test_whoever_goes_on_with_a_run_says_nothing_else(
    command: "Command", unfinished: Path, word: str
) -> None:
    said_ = command("resume=unfinished", word, cwd=unfinished.parent).sentence()
    assert said_ == ("resume=unfinished uses the configuration of that folder: leave out " + word)


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_what_is_no_run_cannot_go_on(command: "Command", tmp_path: Path, folder: str) -> None:
    said_ = command(f"resume={folder}", cwd=tmp_path).sentence()
    assert said_.startswith(
        f"resume={folder} is no run folder (it has no config.yaml): give the folder"
    )


def test_resume_null_is_an_ordinary_run(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ended = command(*smoke, "resume=null", "num_rounds=0", "output_dir=run", cwd=tmp_path)
    assert ended.code == 0, ended.err


def test_python_goes_on_by_the_folder_and_not_by_a_word() -> None:
    with pytest.raises(ConfigError, match=r"resume= works on the command line only"):
        compose(["resume=somewhere"])


def test_a_sweep_goes_on_with_an_unfinished_job(
    command: "Command", smoke: tuple[str, ...], unfinished: Path
) -> None:
    sweep = unfinished.parent / "sweep"
    sweep.mkdir()
    unfinished.rename(sweep / "0")
    # With fewer checkpoints: they change no number, so it is the same run.
    words = (*smoke, *ROUNDS, "num_rounds=5", "checkpoint_every=4", "seed=1,2")
    ended = command("-m", *words, f"output_dir={sweep}")
    assert ended.code == 0, ended.err
    assert "unfinished: goes on after round 4" in ended.err
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
def test_an_impossible_value_is_one_sentence(
    command: "Command", smoke: tuple[str, ...], tmp_path: Path, word: str, mend: str
) -> None:
    assert command(*smoke, word, "output_dir=run", cwd=tmp_path).sentence().startswith(mend)
