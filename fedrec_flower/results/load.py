"""Read any number of run folders back into one tidy frame."""

import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from fedrec_flower.errors import FedrecError

IDENTITY = (
    "dataset", "model", "strategy", "partition", "federation", "protocol", "settings", "task",
    "seed",
)  # fmt: skip
"""What tells runs apart, in every frame given here; `settings` is described in `load_runs`."""

# Overrides that another column tells already, or that cannot change a number.
_TOLD = {
    "dataset", "model", "strategy", "partition", "federation", "split", "task", "seed",
    "output_dir", "dataset.cache_dir", "split.negatives",
}  # fmt: skip

_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True)
class _Run:
    name: str
    folder: Path
    summary: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        known = {column: self.summary.get(column) for column in IDENTITY}
        return {"run": self.name} | known | {"settings": _settings(self.summary)}


def load_runs(path: str | Path) -> pd.DataFrame:
    """Gather the rounds of every run in or below a folder; running and failed runs too.

    Args:
        path: a run folder, or a folder with run folders at any depth.

    Returns:
        One row per run, round, phase and metric: run (folder relative to `path`), dataset,
        model, strategy, partition, federation, protocol, settings (the remaining Hydra
        overrides, so that runs of a sweep stay apart), task, seed, status, selected_round
        (missing while unknown), round, phase, metric, value, num_clients.

    Raises:
        FedrecError: if there is no run that can be read.

    Warns:
        UserWarning: for each run folder that is skipped because it cannot be read.
    """

    def read(run: _Run) -> pd.DataFrame:
        extra = {key: run.summary.get(key) for key in ("status", "selected_round")}
        rounds = _read_rounds(run.folder / "rounds.csv")
        return _with_columns(run.identity | extra, rounds)

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
    return pd.DataFrame(
        _from_each_run(path, lambda run: run.identity | dict(_flattened(run.summary)))
    )


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

    def read(run: _Run) -> pd.DataFrame:
        if run.summary["status"] != "completed":
            return pd.DataFrame()
        table = pd.read_csv(run.folder / "per_user.csv")
        return _with_columns(run.identity, table)

    return _concatenated(_from_each_run(path, read))


def _from_each_run(path: str | Path, read: Callable[[_Run], _Read]) -> list[_Read]:
    root, found = Path(path), []
    for summary in sorted(root.rglob("summary.json")):
        folder = summary.parent
        name = folder.relative_to(root).as_posix()
        try:
            run = _Run(folder.resolve().name if name == "." else name, folder, _load(summary))
            found.append(read(run))
        except (OSError, ValueError) as error:
            warnings.warn(f"{folder} is skipped: {error}", stacklevel=3)
    if not found:
        raise FedrecError(
            f"no run that can be read in or below {root.resolve()}: make one with "
            "`python -m fedrec_flower`, or give the folder that holds your runs"
        )
    return found


def _load(path: Path) -> dict[str, Any]:
    summary = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(summary, dict) or "status" not in summary:
        raise ValueError(f"{path.name} is not the summary of a run")
    return summary


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


def _flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _settings(summary: Mapping[str, Any]) -> str:
    overrides: list[str] = summary.get("overrides") or []
    names = [override.split("=")[0].lstrip("+~") for override in overrides]
    return " ".join(
        override
        for name, override in zip(names, overrides, strict=True)
        if name not in _TOLD and not name.startswith("hydra")
    )
