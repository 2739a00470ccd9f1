"""A run killed at any moment, or by a full disk, can be resumed with the same results."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest

from fedrec_flower.core.random import generator
from fedrec_flower.reports.load import load_runs
from tests.helpers.interrupted_runs import (
    MODELS,
    ROUNDS,
    last_checkpoint,
    require_same,
    uninterrupted,
)

if TYPE_CHECKING:
    from multiprocessing.context import ForkServerProcess

    from tests.integration.conftest import MakeRun

    Start = Callable[..., subprocess.Popen[str]]

LONG = ("num_rounds=18", "checkpoint_every=3", "evaluation.every=2")
GLANCE = 0.0002  # seconds: a checkpoint is written in milliseconds
CONTEXT = multiprocessing.get_context("forkserver")
Moment = Callable[[Path, int], bool]  # of a folder, and of the size that rounds.csv will reach


def _in_process(words: tuple[str, ...], log: Path) -> None:
    """Run the command line in a process that has imported everything."""
    from fedrec_flower.cli.main import main

    with log.open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["fedrec_flower", *words]
    main()


@pytest.fixture(scope="module")
def start() -> "Callable[..., ForkServerProcess]":
    """Start the command line in a process without import time."""
    CONTEXT.set_forkserver_preload(["fedrec_flower.cli.main", "fedrec_flower.experiment.run"])

    def begin(*words: str, log: Path) -> "ForkServerProcess":
        process = CONTEXT.Process(target=_in_process, args=(words, log), daemon=True)
        process.start()
        return process

    return begin


def written(share: float) -> Moment:
    """True when this fraction of rounds.csv is written."""
    return lambda folder, size: _size(folder / "rounds.csv") >= share * size


def appears(pattern: str) -> Moment:
    """True when a file matches the pattern."""
    return lambda folder, _: any(folder.glob(pattern))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


WRITING = "checkpoints/.round-*.checkpoint.partial"
MOMENTS: list[Moment] = [
    *(written(share) for share in generator(20, "kills").uniform(0, 1, 10)),
    *(appears(WRITING) for _ in range(4)),
    appears("config.yaml"),
    appears("checkpoints/round-3.checkpoint"),
    appears("per_user.csv"),
    appears("model.safetensors"),
    appears("clients/PRIVATE.txt"),
    appears("figures/*.png"),
]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(MOMENTS)))
def test_resume_of_a_killed_run_equals_an_uninterrupted_run(
    start: "Callable[..., ForkServerProcess]",
    make_run: "MakeRun",
    smoke: tuple[str, ...],
    tmp_path: Path,
    number: int,
) -> None:
    words = (*smoke, *MODELS[list(MODELS)[number % len(MODELS)]], *LONG)
    whole = uninterrupted(make_run, words)
    folder, log = tmp_path / "run", tmp_path / "log"
    process = start(*words, f"output_dir={folder}", log=log)
    size = _size(whole / "rounds.csv")
    while process.is_alive() and not MOMENTS[number](folder, size):
        time.sleep(GLANCE)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    rest = start(f"resume={folder}", log=log)
    rest.join()
    assert rest.exitcode == 0, log.read_text()
    require_same(whole, folder)


@pytest.mark.slow
def test_run_killed_during_every_checkpoint_still_completes(
    start: "Callable[..., ForkServerProcess]",
    make_run: "MakeRun",
    smoke: tuple[str, ...],
    tmp_path: Path,
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    whole = uninterrupted(make_run, words)
    folder, log, cut_short = tmp_path / "run", tmp_path / "log", 0
    next_words = (*words, f"output_dir={folder}")
    for _ in range(4):
        process, before = start(*next_words, log=log), last_checkpoint(folder)
        # One checkpoint per attempt is completed, otherwise the run would make no progress.
        while process.is_alive() and not (
            last_checkpoint(folder) > before and any(folder.glob(WRITING))
        ):
            time.sleep(GLANCE)
        process.kill()
        process.join()
        cut_short += any(folder.glob(WRITING))
        next_words = (f"resume={folder}",)
    rest = start(*next_words, log=log)
    rest.join()
    assert rest.exitcode == 0, log.read_text()
    assert cut_short, "no kill fell into the writing of a checkpoint"
    require_same(whole, folder)


@pytest.mark.slow
def test_run_after_ctrl_c_can_be_resumed(
    in_terminal: "Start", make_run: "MakeRun", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    process = in_terminal(*words, "output_dir=run", cwd=tmp_path)
    while process.poll() is None and last_checkpoint(tmp_path / "run") < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == (
        "error: interrupted: the results so far are in the run folder; resume=run continues it"
    )
    assert set(load_runs(tmp_path / "run")["status"]) == {"interrupted"}
    assert (tmp_path / "run" / "config.yaml").exists()
    rest = in_terminal("resume=run", cwd=tmp_path)
    _, err = rest.communicate(timeout=120)
    assert rest.returncode == 0, err
    require_same(uninterrupted(make_run, words), tmp_path / "run")


@pytest.mark.slow
def test_resume_of_a_killed_simulation_equals_an_uninterrupted_run(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    nodes = ("federation=simulation", "federation.num_nodes=2")
    words = (*smoke, *MODELS["pfedrec"], *ROUNDS, *nodes)
    for name in ("whole", "run"):
        process = in_terminal(*words, f"output_dir={name}", cwd=tmp_path)
        while name == "run" and process.poll() is None and not last_checkpoint(tmp_path / name):
            time.sleep(0.01)
        if name == "run":
            os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=300)
    rest = in_terminal("resume=run", cwd=tmp_path)
    _, err = rest.communicate(timeout=300)
    assert rest.returncode == 0, err
    require_same(tmp_path / "whole", tmp_path / "run")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of eight megabytes, in memory."""
    mount, unmount = which("mount"), which("umount")
    options = ["-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    if not (mount and unmount and subprocess.run([mount, *options], check=False).returncode == 0):
        pytest.skip("mounting a small file system needs root's rights")
    yield tmp_path
    subprocess.run([unmount, str(tmp_path)], check=True)


def fill(file: Path) -> None:
    """Write until the disk is full."""
    with file.open("wb", buffering=0) as stream:
        while True:
            stream.write(bytes(1024))


@pytest.mark.slow
def test_run_after_a_full_disk_can_be_resumed(
    in_terminal: "Start", make_run: "MakeRun", smoke: tuple[str, ...], small_disk: Path
) -> None:
    words = (*smoke, *MODELS["mf"], *LONG)
    folder, filler = small_disk / "run", small_disk / "filler"
    process = in_terminal(*words, "output_dir=run", cwd=small_disk)
    while process.poll() is None and last_checkpoint(folder) < 6:
        time.sleep(0.01)
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "No space left on device" in err.splitlines()[-1]
    assert "Traceback" not in err
    filler.unlink()
    rest = in_terminal("resume=run", cwd=small_disk)
    _, err = rest.communicate(timeout=120)
    assert rest.returncode == 0, err
    assert "resumed after round" in err
    require_same(uninterrupted(make_run, words), folder)
