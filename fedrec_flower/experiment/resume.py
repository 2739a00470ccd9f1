"""A run or a sweep goes on where it stopped: what stands in a folder decides."""

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

# What a run writes, but for its configuration: by that an unfinished run is known, to the last.
_WRITTEN = (
    "summary.json", "rounds.csv", "per_user.csv", "recommendations.csv", "clients.csv",
    "environment.json", "model.safetensors", "flower.log", "clients", "checkpoints", "figures",
)  # fmt: skip


@contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder while the context lasts, even if it is killed.

    Raises:
        ConfigError: if another process is at work there, or the folder cannot be written.
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
    """Take the folder of a run, whatever an earlier process left there.

    Whether the code has changed since is not asked: `commit` in the summary tells.

    Args:
        path: the folder; claimed.
        configuration: the text of the run's `config.yaml`.

    Returns:
        The folder, ready to be written to. An unfinished run of the same configuration goes on
        from its last sound checkpoint; without one it is removed. None if the finished run of
        the same configuration is there.

    Raises:
        ConfigError: if a run of another configuration is there; nothing of it is touched.
    """
    if holds_a_run(path):
        _require_same(path, configuration)
        if _is_finished(path):
            _LOG.info("%s holds this very run, finished: not run again", path)
            RunFolder(path).tidy()  # it may have been killed at its very end
            return None
        if (saved := RunFolder(path).checkpoints.newest()) is not None:
            _record_patience(path / "config.yaml", configuration)
            _LOG.info(
                "%s holds this very run, unfinished: goes on after round %d", path, saved.round
            )
            return RunFolder(path)
        _LOG.info("%s holds this very run, unfinished: started anew", path)
        for name in _WRITTEN:
            _remove(path / name)
    return RunFolder.create(path, configuration)


def told_before(path: Path) -> list[str]:
    """The overrides that an unfinished run was started with, as far as it could tell."""
    return list(read_summary(path).get("overrides", []))


def _require_same(path: Path, configuration: str) -> None:
    there = path / "config.yaml"
    if not there.exists() and not (path / "summary.json").exists():
        return  # it ended before it began
    try:
        earlier = parse(there.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} holds a run whose config.yaml does not tell which ({error}): set output_dir= "
            "to another folder, or remove that run"
        ) from error
    wanted = parse(configuration)
    may_differ = RESULT_NEUTRAL | FAILURE_LIMITS
    if names := [name for name in differing([earlier, wanted]) if name not in may_differ]:
        there, asked = (as_override(settings, names[0]) for settings in (earlier, wanted))
        raise ConfigError(
            f"{path} holds a run with {there}, but {asked} is asked for: "
            "set output_dir= to another folder, or remove that run"
        )


def _record_patience(file: Path, configuration: str) -> None:
    """Let the folder tell the patience that the run goes on with, if it is another."""
    earlier, wanted = (parse(text) for text in (file.read_text("utf-8"), configuration))
    if any(earlier.get(name) != wanted.get(name) for name in FAILURE_LIMITS):
        with atomic_write(file) as partial:
            partial.write_text(configuration, encoding="utf-8")


def _is_finished(path: Path) -> bool:
    summary = read_summary(path)
    # A run measures its memory to the end: before that is known, figures may be missing.
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
