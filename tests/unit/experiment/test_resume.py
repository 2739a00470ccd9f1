"""Resume: completed runs are skipped, unfinished ones continue, other runs are not touched."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedrec_flower.core.checkpoint import Checkpoint
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.experiment.resume import lock_run_folder, recorded_overrides, resume
from fedrec_flower.experiment.run_folder import RunFolder
from tests.helpers.run_folders import write_run

CONFIG = "model:\n  name: mf\n  rate: 0.1\nseed: 1\n"


def _contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir() if file.is_file()}


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run."""
    run = write_run(tmp_path / "run", model="mf")
    run.write_configuration(CONFIG)
    (run.path / "clients").mkdir()
    return run


def test_an_empty_place_is_taken(tmp_path: Path) -> None:
    folder = resume(tmp_path / "new", CONFIG)
    assert folder is not None
    assert folder.path == tmp_path / "new"


def test_a_finished_run_is_left_as_it_is(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    before = _contents(run.path)
    assert resume(run.path, CONFIG) is None
    assert _contents(run.path) == before
    assert caplog.messages == [f"{run.path} contains this run, completed: not run again"]


def _interrupt(run: RunFolder) -> None:
    run.write_summary({"status": "interrupted", "peak_memory_mb": 1.0})


def _kill_before_the_end(run: RunFolder) -> None:
    run.write_summary({"status": "completed"})


def _kill_at_the_start(run: RunFolder) -> None:
    for name in ("summary.json", "config.yaml"):
        (run.path / name).unlink()


@pytest.mark.parametrize("end", [_interrupt, _kill_before_the_end, _kill_at_the_start])
def test_an_unfinished_run_is_started_anew_and_nothing_of_it_stays(
    run: RunFolder, end: Callable[[RunFolder], None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    end(run)
    (run.path / "notes.txt").write_text("the user's own")
    folder = resume(run.path, CONFIG)
    assert folder is not None
    left = {path.name for path in run.path.iterdir()} - {"config.yaml"}
    assert left == {"rounds.csv", "notes.txt"}
    assert len((run.path / "rounds.csv").read_text().splitlines()) == 1
    assert caplog.messages == [f"{run.path} contains this run, without a checkpoint: started again"]


def test_an_unfinished_run_with_a_checkpoint_keeps_all_it_has(
    run: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    _interrupt(run)
    run.checkpoints.write(Checkpoint(7, "slot", [], [], {}, {}))
    before = _contents(run.path)
    folder = resume(run.path, CONFIG)
    assert folder == run
    assert _contents(run.path) == before
    assert caplog.messages == [f"{run.path} contains this run, unfinished: resumed after round 7"]


def test_how_often_checkpoints_are_written_makes_no_other_run(run: RunFolder) -> None:
    assert resume(run.path, CONFIG + "checkpoint_every: 3\nresume: null\n") is None


def test_what_a_run_was_told_is_known_as_far_as_it_could_tell(run: RunFolder) -> None:
    run.write_summary({"status": "running", "overrides": ["model=mf"]})
    assert recorded_overrides(run.path) == ["model=mf"]
    (run.path / "summary.json").write_text("{")
    assert recorded_overrides(run.path) == []


def _finish(run: RunFolder) -> None:
    del run  # it is


@pytest.mark.parametrize("end", [_finish, _interrupt])
def test_a_run_of_another_configuration_is_refused_and_left_alone(
    run: RunFolder, end: Callable[[RunFolder], None]
) -> None:
    end(run)
    before = _contents(run.path)
    with pytest.raises(ConfigError, match=r"model\.rate=0\.1 instead of model\.rate=0\.2"):
        resume(run.path, CONFIG.replace("0.1", "0.2"))
    with pytest.raises(ConfigError, match="seed=1 instead of seed=2"):
        resume(run.path, CONFIG.replace("seed: 1", "seed: 2"))
    assert _contents(run.path) == before


@pytest.mark.parametrize("config", [None, "model: ["])
def test_a_run_that_does_not_tell_which_it_is_is_refused(
    run: RunFolder, config: str | None
) -> None:
    if config is None:
        (run.path / "config.yaml").unlink()
    else:
        run.write_configuration(config)
    before = _contents(run.path)
    with pytest.raises(ConfigError, match=r"config\.yaml cannot be read"):
        resume(run.path, CONFIG)
    assert _contents(run.path) == before


def test_a_claimed_folder_is_refused_to_others_and_free_afterwards(tmp_path: Path) -> None:
    place = tmp_path / "run"
    refused = pytest.raises(ConfigError, match="is being written by another run")
    with lock_run_folder(place), refused, lock_run_folder(place):
        pass
    with lock_run_folder(place):
        pass
    assert list(place.iterdir()) == []


def test_the_claim_of_a_killed_process_dies_with_it(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fedrec_flower.experiment.resume import lock_run_folder\n"
        "with lock_run_folder(Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    with lock_run_folder(tmp_path):
        pass


def test_a_place_that_cannot_be_claimed_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match="set output_dir="),
        lock_run_folder(tmp_path / "file" / "run"),
    ):
        pass
