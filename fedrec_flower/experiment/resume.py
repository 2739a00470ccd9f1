"""Resumes runs and sweeps, depending on the content of the run folder."""

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.files import atomic_write
from fedrec_flower.experiment.run_folder import RunFolder, holds_a_run
from fedrec_flower.reports.settings import (
    FAILURE_LIMITS,
    RESULT_NEUTRAL,
    as_override,
    differing,
    parse,
)

_LOG = logging.getLogger(__name__)

# Files and folders that a run writes, except config.yaml, which identifies an unfinished run.
_WRITTEN = (
    "summary.json", "rounds.csv", "per_user.csv", "recommendations.csv", "clients.csv",
    "environment.json", "model.safetensors", "flower.log", "clients", "checkpoints", "figures",
)  # fmt: skip


@contextmanager
def lock_run_folder(path: Path) -> Iterator[None]:
    """Lock a run folder against other processes while the context lasts; a killed process unlocks.

    Raises:
        ConfigError: if another process has the lock, or the folder cannot be written.
    """
    lock = FileLock(path / ".lock")
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(
            f"{path} is being written by another run: wait for it, or set output_dir= to another "
            "folder"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"{path} cannot hold a run ({error.strerror}): set output_dir= to a folder you may "
            "write to"
        ) from error
    try:
        yield
    finally:
        lock.release()
        (path / ".lock").unlink(missing_ok=True)


def resume(path: Path, configuration: str) -> RunFolder | None:
    """Open the folder of a new, unfinished or completed run.

    A change of the code since the start is not checked; the summary records the `commit`.

    Args:
        path: the folder; locked by `lock_run_folder`.
        configuration: the text of the run's `config.yaml`.

    Returns:
        The folder, ready for writing. An unfinished run of the same configuration continues from
        its last valid checkpoint; without one its files are removed. None if the run is completed.

    Raises:
        ConfigError: if the folder contains a run of another configuration; it is not changed.
    """
    if holds_a_run(path):
        _require_same(path, configuration)
        if _is_finished(path):
            _LOG.info("%s contains this run, completed: not run again", path)
            RunFolder(path).tidy()  # it may have been killed just before its end
            return None
        if (saved := RunFolder(path).checkpoints.newest()) is not None:
            _record_failure_limits(path / "config.yaml", configuration)
            _LOG.info("%s contains this run, unfinished: resumed after round %d", path, saved.round)
            return RunFolder(path)
        _LOG.info("%s contains this run, without a checkpoint: started again", path)
        for name in _WRITTEN:
            _remove(path / name)
    return RunFolder.create(path, configuration)


def recorded_overrides(path: Path) -> list[str]:
    """Read the overrides that a run was started with; empty if they were not written."""
    return list(read_summary(path).get("overrides", []))


def _require_same(path: Path, configuration: str) -> None:
    there = path / "config.yaml"
    if not there.exists() and not (path / "summary.json").exists():
        return  # it was killed before it wrote anything
    try:
        earlier = parse(there.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} contains a run whose config.yaml cannot be read ({error}): set output_dir= to "
            "another folder, or remove that run"
        ) from error
    wanted = parse(configuration)
    may_differ = RESULT_NEUTRAL | FAILURE_LIMITS
    if names := [name for name in differing([earlier, wanted]) if name not in may_differ]:
        existing = as_override(earlier, names[0])
        requested = as_override(wanted, names[0])
        raise ConfigError(
            f"{path} contains a run with {existing} instead of {requested}: set output_dir= to "
            "another folder, or remove that run"
        )


def _record_failure_limits(file: Path, configuration: str) -> None:
    """Write the new config.yaml if the limits on failures have changed."""
    earlier = parse(file.read_text("utf-8"))
    wanted = parse(configuration)
    if any(earlier.get(name) != wanted.get(name) for name in FAILURE_LIMITS):
        with atomic_write(file) as partial:
            partial.write_text(configuration, encoding="utf-8")


def _is_finished(path: Path) -> bool:
    summary = read_summary(path)
    # The memory is written last: without it, figures may be missing.
    return summary.get("status") == "completed" and "peak_memory_mb" in summary


def read_summary(path: Path) -> dict[str, Any]:
    """Read summary.json of a run folder; empty if it does not exist or cannot be parsed."""
    try:
        return dict(json.loads((path / "summary.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
