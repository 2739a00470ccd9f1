"""Item 21: `flwr run` over a SuperLink and two SuperNodes, each a process on this machine."""

import json
import os
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest

from fedrec_flower.experiment.composition import compose
from fedrec_flower.experiment.run import prepare_data
from fedrec_flower.reports.load import load_summaries

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
READY, RUN = 60.0, 300.0  # seconds, on a busy machine
Start = Callable[..., subprocess.Popen[str]]


def free_port() -> int:
    with closing(socket.socket()) as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
    return port


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start one of Flower's commands; at the end it is killed with all that it has started."""
    programs, processes = Path(sys.executable).parent, list[subprocess.Popen[str]]()

    def started(home: str, *words: str) -> subprocess.Popen[str]:
        own = {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "FLWR_HOME": str(tmp_path / home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "FLWR_DISABLE_UPDATE_CHECK": "1",
            "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.2",
            "OMP_NUM_THREADS": "1",
        }
        with (tmp_path / f"{home}.log").open("a") as log:
            process = subprocess.Popen(
                [str(programs / words[0]), *words[1:]],
                cwd=ROOT,
                env={name: text for name, text in os.environ.items() if name != "PYTHONPATH"} | own,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        processes.append(process)
        return process

    yield started
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            family = [*psutil.Process(process.pid).children(recursive=True)]
            for member in (psutil.Process(process.pid), *family):
                with suppress(psutil.NoSuchProcess):
                    member.kill()
        process.wait(timeout=10)


def test_item_21_flwr_run_completes_over_processes(start: Start, tmp_path: Path) -> None:
    words = ["experiment=smoke", "num_rounds=1", "evaluation.every=1", "training.engine=sequential"]
    words += [f"output_dir={tmp_path / 'run'}", f"dataset.cache_dir={tmp_path / 'cache'}"]
    prepared = prepare_data(compose(words)[0]).path
    port = free_port()
    offline = ("--insecure", "--disable-runtime-dependency-installation")
    start("link", "flower-superlink", *offline, "--port", str(port))
    wait_for(port)
    for node in range(2):
        own = (
            f'partition-id={node} num-partitions=2 prepared="{prepared}" '
            f'store="{tmp_path / str(node)}"'
        )
        address = ("--superlink", f"127.0.0.1:{port}", "--port", str(free_port()))
        start(f"node{node}", "flower-supernode", "--insecure", *address, "--node-config", own)
    (tmp_path / "cli").mkdir()
    connection = f'[superlink.here]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
    (tmp_path / "cli" / "config.toml").write_text(connection)
    told = f"overrides={json.dumps(shlex.join(words))}"
    run = start("cli", "flwr", "run", ".", "here", "--stream", "--run-config", told)
    summary = tmp_path / "run" / "summary.json"
    end = time.monotonic() + RUN
    while time.monotonic() < end and status(summary) in ("absent", "running"):
        failed = run.poll() not in (None, 0)
        assert not failed, logs(tmp_path)
        time.sleep(0.5)
    assert status(summary) == "completed", logs(tmp_path)
    (found,) = load_summaries(tmp_path / "run").to_dict("records")
    assert (found["federation"], found["num_clients"]) == ("deployment", 60)
    assert not found.get("lost_replies")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "flower.log", "model.safetensors", "rounds.csv"} <= names
    assert "clients" not in names
    for node in range(2):
        assert list((tmp_path / str(node)).glob("*/current/*.npy"))


def wait_for(port: int) -> None:
    """Wait until a port is open."""
    end = time.monotonic() + READY
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)
        else:
            return


def status(summary: Path) -> str:
    """Status in the summary; "absent" if there is no summary."""
    try:
        return str(json.loads(summary.read_text())["status"])
    except FileNotFoundError:
        return "absent"


def logs(folder: Path) -> str:
    """The logs of all processes."""
    return "\n".join(f"--- {log.name}\n{log.read_text()[-3000:]}" for log in folder.glob("*.log"))
