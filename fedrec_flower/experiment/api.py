"""Python interface: runs an experiment, and reads the folder of a run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.experiment.composition import compose_unresolved, config_yaml, resolve
from fedrec_flower.experiment.resume import lock_run_folder
from fedrec_flower.experiment.run import run as run_experiment
from fedrec_flower.experiment.run_folder import RunFolder
from fedrec_flower.reports.load import load_runs

_COLUMNS = ["round", "phase", "metric", "value", "num_clients"]


@dataclass(frozen=True, slots=True)
class Run:
    """The results of one run, read from its folder.

    Attributes:
        folder: the run folder, with config.yaml, tables, figures and model.
        summary: the content of summary.json, such as `summary["test"]["ndcg@10"]`.
        rounds: one row per round, phase and metric; columns round, phase ("train", "validation" or
            "test"), metric, value and num_clients.
    """

    folder: Path
    summary: Mapping[str, Any]
    rounds: pd.DataFrame


def run(overrides: Sequence[str] = ()) -> Run:
    """Run one experiment, as the command line does.

    Args:
        overrides: as on the command line, such as `["model=ncf", "num_rounds=20"]`.

    Returns:
        The completed run.

    Raises:
        ConfigError: if an option does not exist, has an impossible value, or does not fit the rest.
        FedrecError: if the data cannot be read, training fails, or the folder cannot be written.
    """
    config = compose_unresolved(overrides)
    if config.resume is not None:
        raise FedrecError("resume= works on the command line only: leave it out")
    resolved = resolve(config) | {"overrides": list(overrides)}
    folder = Path(resolved["output_dir"]).expanduser()
    with lock_run_folder(folder):
        run_experiment(resolved, RunFolder.create(folder, config_yaml(config)))
    return load_run(folder)


def load_run(folder: str | Path) -> Run:
    """Read the folder of one run; also of a running, failed or interrupted one.

    Args:
        folder: the run folder, which contains summary.json and rounds.csv.

    Returns:
        The run as far as it has been written.

    Raises:
        FedrecError: if the folder is not a run folder, or cannot be read.
    """
    path = Path(folder).expanduser()
    if not (path / "summary.json").is_file():
        raise FedrecError(f"{path} is not a run folder (it has no summary.json): give another")
    runs = load_runs(path)
    name = path.resolve().name  # the folder may contain the folders of other runs
    rounds = runs.loc[runs["run"] == name, _COLUMNS].reset_index(drop=True)
    summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    return Run(path, summary, rounds)
