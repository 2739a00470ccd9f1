"""However a run is ended, it ends soon, leaves nobody behind, and keeps what it had."""

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from fedrec_flower.results import load_runs

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Run

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

ENDLESS = ("num_rounds=100000", "evaluation.every=1")
BEGIN, END = 120.0, 20.0  # seconds: Ray starts in its own time; Ctrl-C is obeyed in ours


def when_training(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """Wait for the first trained round; returns the processes that have been started."""
    rounds, end = folder / "rounds.csv", time.monotonic() + BEGIN
    while not (rounds.exists() and "\n1,train" in rounds.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    return psutil.Process(process.pid).children(recursive=True)


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def read(folder: Path) -> "Run":
    from tests.end_to_end.conftest import Run

    return Run(folder)


# A terminal sends Ctrl-C to everyone in the foreground, `kill -INT` to the one process.
@pytest.mark.parametrize("send", [os.kill, os.killpg])
@pytest.mark.parametrize("federation", ["in_process", "simulation"])
def test_ctrl_c_ends_a_run_soon_and_leaves_nobody_behind(
    in_terminal: "Start",
    smoke: tuple[str, ...],
    tmp_path: Path,
    federation: str,
    send: Callable[[int, int], None],
) -> None:
    words = (*smoke, *ENDLESS, f"federation={federation}", "output_dir=run")
    process, folder = in_terminal(*words, cwd=tmp_path), tmp_path / "run"
    started = when_training(process, folder)
    assert bool(started) == (federation == "simulation")
    send(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=END)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted: the run folder keeps what the run had"
    assert "Traceback" not in err
    assert read(folder).summary["status"] == "interrupted"
    assert set(load_runs(folder)["phase"]) == {"train", "validation", "test"}
    psutil.wait_procs(started, timeout=10)
    assert alive(started) == []


@pytest.mark.parametrize("federation", ["in_process", "simulation"])
def test_a_killed_run_leaves_readable_rounds_and_nobody_behind(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path, federation: str
) -> None:
    words = (*smoke, *ENDLESS, f"federation={federation}", "output_dir=run")
    process, folder = in_terminal(*words, cwd=tmp_path), tmp_path / "run"
    started = when_training(process, folder)
    process.kill()
    process.communicate(timeout=END)
    runs = load_runs(folder)
    assert set(runs["status"]) == {"running"}
    assert runs["value"].notna().all()
    psutil.wait_procs(started, timeout=60)  # Ray's processes notice by themselves
    assert alive(started) == []


@pytest.mark.parametrize("wish", [{}, {"FLWR_TELEMETRY_ENABLED": "1"}])
def test_nobody_phones_home_unless_told_to(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path, wish: dict[str, str]
) -> None:
    quiet = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")
    ours = {name: value for name, value in os.environ.items() if name not in quiet}
    words = (*smoke, *ENDLESS, "federation=simulation", "output_dir=run")
    process = in_terminal(*words, cwd=tmp_path, env=ours | wish)
    started = when_training(process, tmp_path / "run")
    workers = [p for p in started if p.name().startswith("ray::ClientAppActor")]
    raylets = [p for p in started if p.name() == "raylet"]
    assert workers
    assert raylets
    seen = [p.environ() for p in (*workers, *raylets)]
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=END)
    for name in quiet:
        assert {environment[name] for environment in seen} == {wish.get(name, "0")}


def test_a_terminal_shows_a_bar_with_metrics_and_the_time_left(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    words = (*smoke, "evaluation.every=1", "num_rounds=60", "output_dir=run")
    wide = os.environ | {"TERM": "xterm", "COLUMNS": "140"}
    process = in_terminal(*words, cwd=tmp_path, stderr=theirs, env=wide)
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", everything(ours))
    assert process.wait(END) == 0
    times = r"\d:\d\d:\d\d < \d:\d\d:\d\d"
    assert re.search(rf"rounds .+ \d+/60 validation ndcg@10 0\.\d+ loss 0\.\d+ {times}", shown)
    assert "starting the engine" in shown


def everything(terminal: int) -> str:
    """All that is written to a terminal until nobody writes any more."""
    blocks = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                block = stream.read(4096)
            except OSError:  # how a terminal says that it was hung up
                break
            if not block:
                break
            blocks.append(block)
    return b"".join(blocks).decode()
