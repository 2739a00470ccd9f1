"""The files of a run folder are complete and valid, also after an error."""

import csv
import getpass
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fedrec_flower.core.cpu import allowed_cores
from fedrec_flower.core.errors import ConfigError, FedrecError
from fedrec_flower.experiment.environment import _version, commit
from fedrec_flower.experiment.run_folder import RunFolder

if TYPE_CHECKING:
    from collections.abc import Callable

FULL_DISK = Path("/dev/full")


@given(
    metrics=st.dictionaries(
        st.from_regex(r"[a-z]{1,9}(@\d{1,3})?(_99neg)?", fullmatch=True),
        st.floats(width=64),
        min_size=1,
    )
)
def test_rounds_hold_every_value_in_full(metrics: dict[str, float]) -> None:
    with TemporaryDirectory() as folder:
        run = RunFolder.create(Path(folder) / "run")
        run.add_round(3, "validation", metrics, num_clients=943)
        with (run.path / "rounds.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    np.testing.assert_array_equal([float(row["value"]) for row in rows], list(metrics.values()))
    assert [row["metric"] for row in rows] == list(metrics)
    assert {(row["round"], row["phase"], row["num_clients"]) for row in rows} == {
        ("3", "validation", "943")
    }


def test_numpy_metrics_are_written_like_python_ones(tmp_path: Path) -> None:
    ours, numpys = RunFolder.create(tmp_path / "python"), RunFolder.create(tmp_path / "numpy")
    ours.add_round(1, "test", {"hr@10": 0.1}, num_clients=5)
    numpys.add_round(1, "test", {"hr@10": np.float64(0.1)}, num_clients=5)
    assert (ours.path / "rounds.csv").read_bytes() == (numpys.path / "rounds.csv").read_bytes()


def test_a_killed_run_leaves_the_rounds_it_had(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from fedrec_flower.experiment.run_folder import RunFolder\n"
        "run = RunFolder.create(Path(sys.argv[1]))\n"
        "for round_ in range(1, 4):\n"
        "    run.add_round(round_, 'train', {'loss': 1 / round_}, 5)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    run = tmp_path / "run"
    killed = subprocess.run([sys.executable, "-c", program, str(run)], check=False)
    assert killed.returncode == -signal.SIGKILL
    rounds = pd.read_csv(run / "rounds.csv")
    assert list(rounds["round"]) == [1, 2, 3]
    assert list(rounds["value"]) == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("remains", ["summary.json", "rounds.csv", "clients"])
def test_a_folder_that_holds_a_run_is_refused_and_left_alone(tmp_path: Path, remains: str) -> None:
    (tmp_path / remains).write_text("precious")
    with pytest.raises(ConfigError, match=r"already holds a run: set output_dir="):
        RunFolder.create(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [remains]
    assert (tmp_path / remains).read_text() == "precious"


def test_a_folder_with_other_files_is_taken(tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    assert RunFolder.create(tmp_path).figures == tmp_path / "figures"


def test_a_folder_that_cannot_be_made_is_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"file/run cannot hold a run .*: set output_dir="):
        RunFolder.create(tmp_path / "file" / "run")


@pytest.mark.skipif(not FULL_DISK.exists(), reason="needs the device that is always full")
@pytest.mark.parametrize(
    "name", ["rounds.csv", "summary.json", "per_user.csv", "model.safetensors"]
)
def test_a_full_disk_names_the_file_and_spares_what_was_there(tmp_path: Path, name: str) -> None:
    run = RunFolder.create(tmp_path / "run")
    file = run.path / name
    file.unlink(missing_ok=True)
    # Tables are added to in place, the other files replaced by a partial one when whole.
    appended = name == "rounds.csv"
    if not appended:
        file.write_text("what was there")
    (file if appended else file.with_name(f".{name}.partial")).symlink_to(FULL_DISK)
    write: dict[str, Callable[[], None]] = {
        "rounds.csv": lambda: run.add_round(1, "test", {"rmse": 1.0}, 5),
        "summary.json": lambda: run.write_summary({"status": "running"}),
        "per_user.csv": lambda: run.write_table("per_user", pd.DataFrame({"user_id": [1]})),
        "model.safetensors": lambda: run.write_model(
            {"item": np.zeros((2, 3), np.float32)}, np.arange(2)
        ),
    }
    with pytest.raises(FedrecError, match=rf"{name} could not be written \(No space left"):
        write[name]()
    assert appended or file.read_text() == "what was there"
    assert not list(run.path.glob(".*.partial"))


def test_a_summary_is_strict_json_in_the_order_given(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_summary({"status": "running"})
    run.write_summary(
        {
            "status": "completed",
            "epsilon": float("inf"),
            "test": {"hr@10": np.float32(0.5), "auc": float("nan")},
            "seeds": (np.int64(1), 2),
            "counts": np.array([1.0, np.inf]),
        }
    )
    text = (run.path / "summary.json").read_text()
    summary = json.loads(text, parse_constant=pytest.fail)
    assert summary == {
        "status": "completed",
        "epsilon": None,
        "test": {"hr@10": 0.5, "auc": None},
        "seeds": [1, 2],
        "counts": [1.0, None],
    }
    assert list(summary) == ["status", "epsilon", "test", "seeds", "counts"]


def test_an_interrupted_summary_leaves_the_older_one(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    run.write_summary({"status": "running"})
    with pytest.raises(TypeError):
        run.write_summary({"status": object()})
    assert json.loads((run.path / "summary.json").read_text()) == {"status": "running"}


def test_tables_and_the_model_are_read_back(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    clients = pd.DataFrame({"client": [0, 1], "name": ["a,b", "ü"], "num_train": [1 / 3, 2.0]})
    run.write_table("clients", clients)
    pd.testing.assert_frame_equal(pd.read_csv(run.path / "clients.csv"), clients)
    item = np.arange(6, dtype=np.float32).reshape(2, 3)
    run.write_model({"item": item.T, "bias": np.ones(1, np.float32)}, np.arange(3))
    np.testing.assert_array_equal(load_file(run.path / "model.safetensors")["item"], item.T)


def test_the_environment_tells_versions_but_nothing_private(tmp_path: Path) -> None:
    run = RunFolder.create(tmp_path / "run")
    described = run.write_environment()
    text = (run.path / "environment.json").read_text()
    assert json.loads(text) == described
    assert described["versions"]["numpy"] == np.__version__
    assert described["cores"] == allowed_cores()
    assert described["memory_gib"] > 0
    assert all(described["versions"].values())
    strings = [described["platform"], *map(str, described["versions"].values())]
    assert not any("/" in string for string in strings)
    words = set(re.split(r"[^\w.-]+", text))
    assert not words & {socket.gethostname(), getpass.getuser(), tmp_path.name}


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_that_of_the_checkout_and_of_no_folder_above_it(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    (tmp_path / "below").mkdir()
    (tmp_path / "file").write_text("first")
    git("init", "--quiet")
    git("add", "file")
    git("commit", "--quiet", "-m", "first")
    head = git("rev-parse", "HEAD").strip()
    assert commit(tmp_path) == head
    assert commit(tmp_path / "below") is None
    (tmp_path / "file").write_text("changed")
    assert commit(tmp_path) == f"{head}-dirty"


def test_what_is_not_known_is_none_and_no_error(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    assert commit(tmp_path) is None
    assert _version("a-package-nobody-has") is None
