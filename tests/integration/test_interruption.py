"""A run that is ended by a signal ends quickly, with its processes, and keeps its results."""

import json
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

from fedrec_flower.reports.load import load_runs

if TYPE_CHECKING:
    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow

ENDLESS = ("num_rounds=100000", "evaluation.every=1")
QUIET = ("FLWR_TELEMETRY_ENABLED", "RAY_USAGE_STATS_ENABLED")
BEGIN, END = 120.0, 20.0  # seconds: Ray starts in its own time; Ctrl-C is obeyed in ours


def when_training(process: subprocess.Popen[str], folder: Path) -> list[psutil.Process]:
    """Wait for the first trained round; returns the processes that have been started."""
    rounds, end = folder / "rounds.csv", time.monotonic() + BEGIN
    while not (rounds.exists() and "\n1,train" in rounds.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.1)
    return psutil.Process(process.pid).children(recursive=True)


# A terminal sends Ctrl-C to all foreground processes, `kill -INT` to one process.
@pytest.mark.parametrize("send", [os.kill, os.killpg])
def test_ctrl_c_ends_a_run_soon(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path, send: Callable[[int, int], None]
) -> None:
    process = in_terminal(*smoke, *ENDLESS, "output_dir=run", cwd=tmp_path)
    assert when_training(process, tmp_path / "run") == []
    send(process.pid, signal.SIGINT)
    require_interrupted(process, tmp_path / "run")


# The environment of Ray's child processes shows the settings of telemetry.
@pytest.mark.parametrize(
    ("send", "wish"), [(os.kill, {}), (os.killpg, {"FLWR_TELEMETRY_ENABLED": "1"})]
)
def test_ctrl_c_ends_ray_and_telemetry_is_off_by_default(
    in_terminal: "Start",
    smoke: tuple[str, ...],
    tmp_path: Path,
    send: Callable[[int, int], None],
    wish: dict[str, str],
) -> None:
    ours = {name: value for name, value in os.environ.items() if name not in QUIET}
    words = (*smoke, *ENDLESS, "federation=simulation", "output_dir=run")
    process = in_terminal(*words, cwd=tmp_path, env=ours | wish)
    started = when_training(process, tmp_path / "run")
    told = [p.environ() for p in started if p.name().startswith(("ray::ClientAppActor", "raylet"))]
    assert len(told) >= 2  # at least a worker and the raylet
    for name in QUIET:
        assert {environment[name] for environment in told} == {wish.get(name, "0")}
    send(process.pid, signal.SIGINT)
    require_interrupted(process, tmp_path / "run")
    psutil.wait_procs(started, timeout=10)
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


# F8: batch systems end a job by SIGTERM, a terminal that is closed by SIGHUP.
ENDINGS = [(signal.SIGTERM, 143), (signal.SIGHUP, 129)]


@pytest.mark.parametrize("engine", ["in_process", "simulation"])
@pytest.mark.parametrize(("number", "code"), ENDINGS)
def test_f8_sigterm_and_sighup_end_a_run_like_ctrl_c(
    in_terminal: "Start",
    smoke: tuple[str, ...],
    tmp_path: Path,
    engine: str,
    number: signal.Signals,
    code: int,
) -> None:
    words = (*smoke, *ENDLESS, f"federation={engine}", "output_dir=run")
    process = in_terminal(*words, cwd=tmp_path)
    started = when_training(process, tmp_path / "run")
    process.send_signal(number)
    require_interrupted(process, tmp_path / "run", code)
    psutil.wait_procs(started, timeout=10)
    assert [p for p in started if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []


def test_f8_sigterm_ends_a_sweep_like_ctrl_c(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    process = in_terminal("-m", *smoke, *ENDLESS, "seed=1,2", "output_dir=runs", cwd=tmp_path)
    when_training(process, tmp_path / "runs" / "0")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=END)
    assert process.returncode == 143, err
    assert "Traceback" not in err
    assert not (tmp_path / "runs" / "1").exists()
    summary = json.loads((tmp_path / "runs" / "0" / "summary.json").read_text())
    assert summary["status"] == "interrupted"


def test_f8_run_under_nohup_ignores_sighup(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = in_terminal(*smoke, *ENDLESS, "output_dir=run", cwd=tmp_path)
    finally:
        signal.signal(signal.SIGHUP, ignored)
    when_training(process, tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    time.sleep(2)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    require_interrupted(process, tmp_path / "run", 143)


def require_interrupted(process: subprocess.Popen[str], folder: Path, code: int = 130) -> None:
    _, err = process.communicate(timeout=END)
    assert process.returncode == code
    kept = "error: interrupted: the results so far are in the run folder"
    assert err.splitlines()[-1] == f"{kept}; resume=run continues it"
    assert "Traceback" not in err
    assert json.loads((folder / "summary.json").read_text())["status"] == "interrupted"
    assert set(load_runs(folder)["phase"]) == {"train", "validation", "test"}


def test_killed_run_leaves_readable_rounds(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    process = in_terminal(*smoke, *ENDLESS, "output_dir=run", cwd=tmp_path)
    when_training(process, tmp_path / "run")
    process.kill()
    process.communicate(timeout=END)
    runs = load_runs(tmp_path / "run")
    assert set(runs["status"]) == {"running"}
    assert runs["value"].notna().all()


def test_terminal_shows_metrics_and_remaining_time(
    in_terminal: "Start", smoke: tuple[str, ...], tmp_path: Path
) -> None:
    ours, theirs = pty.openpty()
    words = (*smoke, "evaluation.every=1", "num_rounds=60", "output_dir=run")
    wide = os.environ | {"TERM": "xterm", "COLUMNS": "140"}
    process = in_terminal(*words, cwd=tmp_path, stderr=theirs, env=wide)
    os.close(theirs)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", everything(ours))
    process.communicate(timeout=END)
    assert process.returncode == 0
    times = r"\d:\d\d:\d\d < \d:\d\d:\d\d"
    assert re.search(rf"rounds .+ \d+/60 validation ndcg@10 0\.\d+ loss 0\.\d+ {times}", shown)
    assert "starting the engine" in shown


def everything(terminal: int) -> str:
    """Text written to a terminal until it is closed."""
    blocks = []
    with os.fdopen(terminal, "rb", buffering=0) as stream:
        while True:
            try:
                block = stream.read(4096)
            except OSError:  # the terminal was closed
                break
            if not block:
                break
            blocks.append(block)
    return b"".join(blocks).decode()
