"""Writes the run folder: text tables that stay readable if the run is killed."""

import csv
import io
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal
from uuid import uuid4

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import is_numeric_dtype
from safetensors.numpy import save

from fedrec_flower.core.checkpoint import Checkpoints
from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.files import atomic_write, explain_os_errors
from fedrec_flower.data.interactions import Ids
from fedrec_flower.experiment.environment import environment
from fedrec_flower.experiment.transfer import MODEL, VERSIONS, metadata

Phase = Literal["train", "validation", "test"]

# Each of them shows that the folder contains a run.
_A_RUN = ("summary.json", "rounds.csv", "clients", "checkpoints")
_RUN_ID = "run_id"
_ROUND_COLUMNS = ("round", "phase", "metric", "value", "num_clients")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """The folder of one run; `create` makes a new one.

    Every method that writes raises `FedrecError`, naming the file, if the disk is full or the
    file cannot be written.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, configuration: str | None = None) -> "RunFolder":
        """Make the folder of a new run, with an empty `rounds.csv`.

        Args:
            path: the folder; it may exist already, with other files, but not with a run.
            configuration: see `write_configuration`; written first, so that a killed run can be
                resumed.

        Returns:
            The folder, ready for writing.

        Raises:
            ConfigError: if the folder contains a run or cannot be written.
        """
        try:
            path.mkdir(parents=True, exist_ok=True)
            taken = holds_a_run(path)
            if not taken:
                if configuration is not None:
                    cls(path).write_configuration(configuration)
                # "x": of two runs started at once in the same folder, only one gets it.
                with (path / "rounds.csv").open("xb") as file:
                    file.write(_csv_lines([_ROUND_COLUMNS]))
        except OSError as error:
            raise ConfigError(
                f"{path} cannot hold a run ({error.strerror}): set output_dir= to a folder "
                "you may write to"
            ) from error
        if taken:
            raise ConfigError(
                f"{path} already holds a run: set output_dir= to another folder, remove that run, "
                f"or continue it with resume={path}"
            )
        return cls(path)

    @property
    def run_id(self) -> str:
        """Identity of the run on deployed nodes; it stays the same when the run is resumed."""
        file = self.path / _RUN_ID
        with explain_os_errors(file):
            if not file.exists():
                self.path.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as partial:
                    partial.write_text(uuid4().hex + "\n", encoding="utf-8")
            return file.read_text(encoding="utf-8").strip()

    @property
    def figures(self) -> Path:
        """Folder of the figures; created when the first figure is saved."""
        return self.path / "figures"

    @property
    def checkpoints(self) -> Checkpoints:
        """Checkpoints for resuming the run."""
        return Checkpoints(self.path)

    def add_round(
        self, round_: int, phase: Phase, metrics: Mapping[str, float], num_clients: int
    ) -> None:
        """Append one row per metric to `rounds.csv` and close the file.

        Args:
            round_: the round of the metrics; 0 is the untrained model.
            phase: part of the data on which they were measured.
            metrics: metric name to value; written in full precision.
            num_clients: number of clients over which they are averaged.
        """
        rows = [
            (round_, phase, name, repr(float(value)), num_clients)
            for name, value in metrics.items()
        ]
        rounds = self.path / "rounds.csv"
        # Opened and closed for every round, so that no row is lost if the process is killed.
        with explain_os_errors(rounds), rounds.open("ab") as file:
            file.write(_csv_lines(rows))

    def write_configuration(self, text: str) -> None:
        """Write `config.yaml`.

        Args:
            text: the resolved configuration, as YAML.
        """
        with atomic_write(self.path / "config.yaml") as partial:
            partial.write_text(text, encoding="utf-8")

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write `summary.json`, replacing an older one; NaN and infinity become null.

        Args:
            summary: any nesting of mappings, sequences, numbers (numpy's too) and text; the
                order of keys is kept.
        """
        self._write_json("summary.json", summary)

    def write_environment(self) -> dict[str, Any]:
        """Write `environment.json`.

        Returns:
            The content, of which the summary repeats `versions` and `commit`; see `environment`.
        """
        described = environment()
        self._write_json("environment.json", described)
        return described

    def write_table(self, name: str, frame: pd.DataFrame) -> None:
        """Write a table of users, without its index; only the owner of the run may read it.

        Args:
            name: the file's name without ".csv", such as "per_user" or "clients".
            frame: any columns; floats are written in full.
        """
        with atomic_write(self.path / f"{name}.csv", private=True) as partial:
            # The csv module does not quote a carriage return, but readers end a line there.
            has_returns = _has_returns(frame)
            quoting: Literal[0, 2] = csv.QUOTE_NONNUMERIC if has_returns else csv.QUOTE_MINIMAL
            frame.to_csv(partial, index=False, lineterminator="\n", quoting=quoting)

    def write_model(
        self,
        parameters: Mapping[str, NDArray[Any]],
        item_ids: Ids,
        privacy: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        """Write the shared parameters to `model.safetensors`.

        Only the owner may read it if it contains the version of each client.

        Args:
            parameters: tensor name to array, any shapes.
            item_ids: original ids of the items, in the order of the tables' rows; a later run
                may start from them: see `transfer`.
            privacy: the guarantee that covers them, as in summary.json; empty without one.
        """
        whole = {name: np.ascontiguousarray(array) for name, array in parameters.items()}
        with atomic_write(self.path / MODEL, private=VERSIONS in whole) as partial:
            partial.write_bytes(save(whole, metadata(item_ids, privacy)))

    def tidy(self) -> None:
        """Remove the files that only an unfinished run needs; can be repeated when interrupted."""
        clients = self.path / "clients"
        (clients / "secret").unlink(missing_ok=True)  # not used after the run
        for folder in (self.path / "checkpoints", *clients.glob("*/")):
            if folder.is_dir():
                shutil.rmtree(folder)

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        with atomic_write(self.path / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")


def holds_a_run(path: Path) -> bool:
    """True if a folder contains files of a run, completed or not."""
    return any((path / name).exists() for name in _A_RUN)


def _has_returns(frame: pd.DataFrame) -> bool:
    """True if a text in a table contains a carriage return."""
    columns = (column for _, column in frame.items() if not is_numeric_dtype(column))
    return any(column.astype(str).str.contains("\r").any() for column in columns)


def _csv_lines(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _plain(value: Any) -> Any:
    """Convert numpy values to Python values, and NaN and infinity, which JSON lacks, to None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
