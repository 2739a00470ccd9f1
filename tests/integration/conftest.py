"""Whole runs, as a user starts them, on data small enough for seconds."""

import io
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

# Arguments of most runs here: seconds, no network, no Ray.
SMOKE = ("experiment=smoke",)
_PROGRESS = re.compile(r"round \d+/\d+ |\w+=\w+ also sets ")


@dataclass(frozen=True, slots=True)
class Ended:
    """Output of a command.

    Attributes:
        code: the exit code.
        out: text on stdout.
        err: text on stderr.
    """

    code: int
    out: str
    err: str

    def sentence(self) -> str:
        """The error message; presets and progress of training may precede it."""
        assert self.code == 1, self
        *before, last = self.err.splitlines()
        assert all(_PROGRESS.match(line) for line in before), self.err
        assert last.startswith("error: ")
        assert "bug" not in last
        return last.removeprefix("error: ")


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder, read."""

    folder: Path

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        content: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return content

    def table(self, name: str) -> pd.DataFrame:
        """One of the tables; original ids of the tiny data look like 007 and stay text."""
        kinds = dict.fromkeys(("user_id", "item_id", "held_out_item_id"), str)
        return pd.read_csv(self.folder / f"{name}.csv", dtype=kinds)

    def values(self, phase: str, metric: str) -> dict[int, float]:
        """A metric of rounds.csv, by round."""
        table = self.table("rounds")
        rows = table[(table["phase"] == phase) & (table["metric"] == metric)]
        return dict(zip(rows["round"], rows["value"], strict=True))


Command = Callable[..., Ended]
MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where prepared data live for the length of the session."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke(cache: Path) -> tuple[str, ...]:
    """Arguments of a small run with a temporary cache."""
    return (*SMOKE, f"dataset.cache_dir={cache}")


@pytest.fixture(scope="session")
def command(tmp_path_factory: pytest.TempPathFactory) -> Command:
    """Run the command line in this process, where everything is imported already."""
    somewhere = tmp_path_factory.mktemp("cwd")

    def run(*words: str, cwd: Path = somewhere, full_error: str = "0") -> Ended:
        from fedrec_flower.cli.main import main

        out, err, code = io.StringIO(), io.StringIO(), 0
        root = logging.getLogger()
        handlers, root.handlers = root.handlers, []
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.setattr(sys, "argv", ["fedrec_flower", *words])
            patch.setenv("HYDRA_FULL_ERROR", full_error)
            patch.chdir(cwd)
            try:
                main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                root.handlers = handlers
        return Ended(code, out.getvalue(), err.getvalue())

    return run


@pytest.fixture(scope="session")
def in_terminal() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the command line in a process and a process group of its own."""
    started: list[subprocess.Popen[str]] = []
    # Background processes ignore Ctrl-C, and their children would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*words: str, cwd: Path, **options: Any) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "fedrec_flower", *words],
            cwd=cwd,
            text=True,
            start_new_session=True,
            **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
        )
        started.append(process)
        return process

    yield start
    for process in started:  # of failed tests
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture(scope="session")
def make_run(smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeRun]:
    """Run an experiment by its Python interface; overrides as on the command line."""
    from fedrec_flower.experiment.composition import compose
    from fedrec_flower.experiment.run import run
    from fedrec_flower.experiment.run_folder import RunFolder
    from fedrec_flower.federation.client.node import open_node

    def make(*overrides: str, base: Sequence[str] = smoke) -> Run:
        config, _ = compose([*base, *overrides])
        folder = tmp_path_factory.mktemp("run") / "run"
        run(config, RunFolder.create(folder))
        return Run(folder)

    yield make
    open_node.cache_clear()  # or open files would outlive their folder


@pytest.fixture(scope="session")
def sweep(
    command: Command, smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a sweep over two models and two seeds."""
    folder = tmp_path_factory.mktemp("sweep")
    grid = ("model=mf,ncf", "seed=1,2", "num_rounds=2", f"output_dir={folder}")
    ended = command("-m", *smoke, *grid)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture(scope="session")
def earlier(
    command: Command, smoke: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run without training; its data are prepared."""
    folder = tmp_path_factory.mktemp("earlier") / "run"
    assert command(*smoke, "num_rounds=0", f"output_dir={folder}").code == 0
    return folder


NUM_USERS, NUM_ITEMS = 40, 140


@pytest.fixture(scope="session")
def ratings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own file: ids that look like numbers but are none, distinct times."""
    rng = np.random.default_rng(3)
    sizes = rng.integers(5, 15, NUM_USERS)
    liked = [rng.permutation(NUM_ITEMS)[:size] for size in sizes]
    frame = pd.DataFrame(
        {
            "user_id": [f"{user:03}" for user in np.repeat(np.arange(NUM_USERS), sizes)],
            "item_id": [f"film {item:03}" for item in np.concatenate(liked)],
            "rating": rng.integers(1, 6, sizes.sum()),
            "timestamp": rng.permutation(sizes.sum()),
        }
    )
    folder = tmp_path_factory.mktemp("ratings")
    frame.to_csv(folder / "ratings.csv", index=False)
    films = sorted(set(frame["item_id"]))
    genres = [["Comedy", "Drama", "Comedy|Drama"][n % 3] for n in range(len(films))]
    titles = [f"The {film}" for film in films]
    pd.DataFrame({"item_id": films, "title": titles, "genres": genres}).to_csv(
        folder / "films.csv", index=False
    )
    return folder / "ratings.csv"


@pytest.fixture(scope="session")
def own_data(ratings: Path, cache: Path) -> tuple[str, ...]:
    """Arguments of a run on the user's own file."""
    return (
        "dataset=file",
        f"dataset.path={ratings}",
        f"dataset.items_path={ratings.parent / 'films.csv'}",
        "dataset.item_columns.title=title",
        "dataset.item_columns.genres=genres",
        f"dataset.cache_dir={cache}",
        "federation=in_process",
        # Of the defaults' own choice, so that tuning them moves no test.
        "model.embedding_dim=16",
        "model.init_std=0.1",
        "training.learning_rate=5.0",
        "strategy=fedavg",
        "seed=4",
        "num_rounds=6",
        "evaluation.every=2",
    )
