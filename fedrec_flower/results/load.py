"""Read any number of run folders back into one tidy frame."""

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from fedrec_flower.errors import FedrecError
from fedrec_flower.results.configuration import (
    Settings,
    digest,
    experiment,
    flattened,
    labels,
    settings_of,
)

IDENTITY = (
    "dataset", "model", "label", "strategy", "partition", "federation", "protocol", "task",
    "configuration", "seed", "split_sha256",
)  # fmt: skip
"""What tells runs apart, in every frame given here; see `load_runs`."""

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    folder: Path
    summary: dict[str, Any]
    settings: Settings

    @property
    def configuration(self) -> str:
        return digest(self.settings)

    def identity(self, label: str) -> dict[str, Any]:
        known = {column: self.summary.get(column) for column in IDENTITY}
        told = {"label": label, "configuration": self.configuration}
        return {"run": self.name} | known | told


def load_runs(path: str | Path) -> pd.DataFrame:
    """Gather the rounds of every run in or below a folder; running and failed runs too.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run, round, phase and metric: run (folder relative to `path`), dataset,
        model, label (the model, and what sets the run apart from others of that model here, see
        `configuration.labels`), strategy, partition, federation, protocol, task, configuration
        (the same for runs that differ in nothing but their seed), seed, split_sha256 (tells folds
        apart), status, selected_round (missing while unknown), round, phase, metric, value,
        num_clients.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each run folder that is skipped because it cannot be read.
    """

    def read(run: _Run, identity: dict[str, Any]) -> pd.DataFrame:
        extra = {key: run.summary.get(key) for key in ("status", "selected_round")}
        rounds = _read_rounds(run.folder / "rounds.csv")
        return _with_columns(identity | extra, rounds)

    return _concatenated(_from_each_run(path, read))


def load_summaries(path: str | Path) -> pd.DataFrame:
    """Gather the summaries of every run in or below a folder; running and failed runs too.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run: run, the columns that name it as in `load_runs`, and every other value
        of `summary.json`, nested names joined by a dot (`test.ndcg@10`, `seconds.total`); null
        (such as `epsilon` without privacy) is a missing value.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each run folder that is skipped because it cannot be read.
    """

    def read(run: _Run, identity: dict[str, Any]) -> dict[str, Any]:
        return identity | dict(flattened(run.summary))

    return pd.DataFrame(_from_each_run(path, read))


def load_per_user(path: str | Path) -> pd.DataFrame:
    """Gather `per_user.csv` of every run in or below a folder.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run and user: run, the columns that name it as in `load_runs`, and those of
        `per_user.csv`: user_id, num_train, and held_out_item_id, rank_full and rank_99neg (1 is
        the best rank), or for rating tasks squared_error and absolute_error (sums over the
        user's test ratings) and num_ratings.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each completed run that cannot be read; others are left out.
    """

    def read(run: _Run, identity: dict[str, Any]) -> pd.DataFrame:
        if run.summary["status"] != "completed":
            return pd.DataFrame()
        return _with_columns(identity, pd.read_csv(run.folder / "per_user.csv"))

    return _concatenated(_from_each_run(path, read))


def load_settings(path: str | Path) -> dict[str, Settings]:
    """Gather what the runs in or below a folder were told, but for their seeds and folders.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        The `configuration` of the other frames to its settings, dotted name to value.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each run folder that is skipped because it cannot be read.
    """
    pairs = _from_each_run(path, lambda run, _: (run.configuration, experiment(run.settings)))
    return dict(pairs)


def _from_each_run(path: str | Path, read: Callable[[_Run, dict[str, Any]], _Read]) -> list[_Read]:
    root = Path(path)
    folders = [summary.parent for summary in sorted(root.rglob("summary.json"))]
    runs = _those_readable(folders, str, lambda folder: _open(root, folder))
    told = _labels(runs)
    found = _those_readable(
        runs,
        lambda run: str(run.folder),
        lambda run: read(run, run.identity(told[run.configuration])),
    )
    if not found:
        raise FedrecError(
            f"no run that can be read in or below {root.resolve()}: make one with "
            "`python -m fedrec_flower`, or give the folder that holds your runs"
        )
    return found


def _labels(runs: Iterable[_Run]) -> dict[str, str]:
    """Labels by configuration; what was refused or failed names nothing of what was not."""
    every = {run.configuration: experiment(run.settings) for run in runs}
    sound = {run.configuration for run in runs if run.summary["status"] != "failed"}
    return labels(every) | labels({key: every[key] for key in every if key in sound})


def _those_readable(
    items: Iterable[_Item], name: Callable[[_Item], str], read: Callable[[_Item], _Read]
) -> list[_Read]:
    found = []
    for item in items:
        try:
            found.append(read(item))
        except (OSError, ValueError) as error:
            warnings.warn(f"{name(item)} is skipped: {error}", stacklevel=4)
    return found


def _open(root: Path, folder: Path) -> _Run:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if not isinstance(summary, dict) or "status" not in summary:
        raise ValueError("summary.json is not the summary of a run")
    name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
    return _Run(name, folder, summary, settings_of(folder, summary))


def _read_rounds(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a run killed while writing may leave half a row
    kinds = {"round": "int64", "phase": "str", "metric": "str", "value": "float64"}
    return pd.read_csv(io.StringIO(whole), dtype=kinds | {"num_clients": "int64"})


def _with_columns(values: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    constant = pd.DataFrame(dict(values), index=frame.index)
    return pd.concat([constant, frame], axis="columns")


def _concatenated(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # Pandas would let an empty table decide the type of a column.
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    whole = pd.concat(filled, ignore_index=True)
    numbers = {"seed", "selected_round"} & set(whole.columns)
    return whole.astype(dict.fromkeys(numbers, "Int64"))
