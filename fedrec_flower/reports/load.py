"""Read any number of run folders back into one tidy frame."""

import io
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.core.instantiate import flattened
from fedrec_flower.reports.settings import (
    Settings,
    digest,
    experiment,
    labels,
    settings_of,
)

IDENTITY = (
    "dataset", "model", "label", "strategy", "partition", "federation", "protocol", "task",
    "configuration", "seed", "split_sha256",
)  # fmt: skip
"""Columns that identify a run in every frame of this module; see `load_runs`."""

_IDS = ("user_id", "item_id", "held_out_item_id")
_NAMES = (
    "run", "label", "dataset", "model", "strategy", "partition", "federation", "protocol", "task",
    "candidates", "configuration", "settings", "name", "title", "top_genre", "group", "attack",
)  # fmt: skip

_LARGEST = 2**63 - 1  # of a column of integers
_COUNTS = ("seed", "num_rounds", "clients_per_round", "num_clients", "selected_round")
_FIGURES = ("validation", "test", "test_standard_error", "seconds", "bytes", "fairness")

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
        names = {"label": label, "configuration": self.configuration}
        return {"run": self.name} | known | names


def load_runs(path: str | Path) -> pd.DataFrame:
    """Load the rounds of every run in or below a folder, including running and failed runs.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run, round, phase and metric: run (folder relative to `path`), dataset,
        model, label (the model and the settings that distinguish the run from others of that model,
        see `settings.labels`), strategy, partition, federation, protocol, task, configuration
        (equal for runs that differ only in their seed), seed, split_sha256 (distinguishes folds),
        status, selected_round (missing while unknown), round, phase, metric, value, num_clients.

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
    """Load the summaries of every run in or below a folder, including running and failed runs.

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
    """Load `per_user.csv` of every simulated run in or below a folder.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run and user: run, the columns that name it as in `load_runs`, and those of
        `per_user.csv`: user_id (text), num_train, and held_out_item_id (text), rank_full and
        rank_99neg (1 is the best rank), or for rating tasks squared_error and absolute_error
        (sums over the user's test ratings) and num_ratings.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each completed run that cannot be read; others are left out.
    """

    def read(run: _Run, identity: dict[str, Any]) -> pd.DataFrame:
        if run.summary["status"] != "completed" or run.summary["federation"] == "deployment":
            return pd.DataFrame()  # in a deployment, data about users stay on the nodes
        return _with_columns(identity, read_table(run.folder / "per_user.csv"))

    return _concatenated(_from_each_run(path, read))


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a table of this project: of a run, of `compare`, or of `results/published`.

    Ids and names are read as text, including "007", "NA" and "null"; no type is inferred. An empty
    name is a missing value; an empty id is not.

    Args:
        path: the CSV file.
    """
    columns = pd.read_csv(path, nrows=0).columns
    # Only an empty cell is a missing value, and ids have none.
    gaps = {name: [""] for name in columns if name not in _IDS}
    texts = dict.fromkeys((*_IDS, *_NAMES), "str")
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=gaps)


def load_settings(path: str | Path) -> dict[str, Settings]:
    """Load the settings of the runs in or below a folder, without seeds and folders.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        `configuration` (as in the other frames) -> its settings, dotted name -> value.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each run folder that is skipped because it cannot be read.
    """
    pairs = _from_each_run(path, lambda run, _: (run.configuration, experiment(run.settings)))
    return dict(pairs)


def _from_each_run(path: str | Path, read: Callable[[_Run, dict[str, Any]], _Read]) -> list[_Read]:
    root = Path(path).expanduser()
    folders = [summary.parent for summary in sorted(root.rglob("summary.json"))]
    runs = _those_readable(folders, str, lambda folder: _open(root, folder))
    label_of = _labels(runs)
    found = _those_readable(
        runs,
        lambda run: str(run.folder),
        lambda run: read(run, run.identity(label_of[run.configuration])),
    )
    if not found:
        raise FedrecError(
            f"no run that can be read in or below {root.resolve()}: make one with "
            "`python -m fedrec_flower`, or give the folder that holds your runs"
        )
    return found


def _labels(runs: Iterable[_Run]) -> dict[str, str]:
    """Return labels by configuration. Failed runs do not change the labels of other runs."""
    experiments = {run.configuration: experiment(run.settings) for run in runs}
    valid = {run.configuration for run in runs if run.summary["status"] != "failed"}
    return labels(experiments) | labels(
        {key: experiments[key] for key in experiments if key in valid}
    )


def _those_readable(
    items: Iterable[_Item], name: Callable[[_Item], str], read: Callable[[_Item], _Read]
) -> list[_Read]:
    found = []
    for item in items:
        try:
            found.append(read(item))
        except Exception as error:  # noqa: BLE001  # one unreadable run must not hide the others
            reason = str(error) or type(error).__name__
            warnings.warn(f"{name(item)} is skipped: {reason}", stacklevel=4)
    return found


def _open(root: Path, folder: Path) -> _Run:
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if not isinstance(summary, dict) or "status" not in summary:
        raise ValueError("summary.json is not the summary of a run")
    _check(summary)
    name = folder.resolve().name if folder == root else folder.relative_to(root).as_posix()
    return _Run(name, folder, summary, settings_of(folder, summary))


def _check(summary: Mapping[str, Any]) -> None:
    """Check that the values of a summary have the types and sizes that runs write.

    Raises:
        ValueError: names the value.
    """
    for name in IDENTITY:
        if name != "seed" and not isinstance(summary.get(name), str | None):
            raise ValueError(f"{name} in summary.json is not text: {summary[name]!r}")
    for name in _COUNTS:
        value = summary.get(name)
        is_integer = isinstance(value, int) and not isinstance(value, bool)
        if value is not None and not (is_integer and abs(value) <= _LARGEST):
            raise ValueError(f"{name} in summary.json is not an integer of 64 bits: {value!r}")
    for name in _FIGURES:
        figures = summary.get(name) or {}
        if not isinstance(figures, dict) or not all(map(_is_number, figures.values())):
            raise ValueError(f"{name} in summary.json is not a table of numbers: {figures!r}")


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _read_rounds(path: Path) -> pd.DataFrame:
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]  # a killed run may leave an incomplete row
    numbers = {"round": "int64", "value": "float64", "num_clients": "int64"}
    table = pd.read_csv(io.StringIO(whole), dtype={"phase": "str", "metric": "str"} | numbers)
    if missing := sorted({"phase", "metric", *numbers} - set(table)):
        raise ValueError(f"rounds.csv has no column {missing[0]}")
    return table


def _with_columns(values: Mapping[str, Any], frame: pd.DataFrame) -> pd.DataFrame:
    constant = pd.DataFrame(dict(values), index=frame.index)
    return pd.concat([constant, frame], axis="columns")


def _concatenated(frames: list[pd.DataFrame]) -> pd.DataFrame:
    # Pandas would let an empty table decide the type of a column.
    filled = [frame for frame in frames if len(frame)] or frames[:1]
    whole = pd.concat(filled, ignore_index=True)
    numbers = {"seed", "selected_round"} & set(whole.columns)
    return whole.astype(dict.fromkeys(numbers, "Int64"))
