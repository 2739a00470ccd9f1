"""Writes files atomically, so that a killed run or a full disk leaves no partial file."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path

from filelock import SoftFileLock

from fedrec_flower.core.errors import FedrecError

_OWNER_ONLY = 0o600  # file mode
_LOCK_TIMEOUT_SECONDS = 60.0  # a killed process may leave a lock behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def child_path(folder: Path, name: str) -> Path:
    """The path of a file or folder directly inside a folder; the name may be untrusted.

    Args:
        folder: the folder.
        name: of up to 64 letters, digits, dots, underscores and hyphens; the first is a letter
            or a digit.

    Raises:
        FedrecError: if the name is not of this form, such as one that leads out of the folder.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FedrecError(f"{name!r} is not the name of a file: use letters, digits, '-' and '_'")
    return folder / name


def replace_unprintable() -> None:
    """Let stdout and stderr print any text: characters outside their encoding become "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def explain_os_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one sentence with a fix.

    Raises:
        FedrecError: names the file and the reason.
    """
    try:
        yield
    except OSError as error:
        raise FedrecError(
            f"{path} could not be written ({error.strerror or error}): free some disk space or "
            "set output_dir= to a folder you may write to"
        ) from error


@contextmanager
def atomic_write(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Write to a temporary file that replaces `path` only when it is complete.

    Args:
        path: the file to write or replace.
        private: True if the file holds data of users: then its mode is 600 from the first byte.

    Yields:
        The path of the temporary file.

    Raises:
        FedrecError: if the file cannot be written; the earlier file is unchanged.
    """
    partial = path.with_name(f".{path.name}.partial")
    with explain_os_errors(path):
        try:
            if private:
                partial.touch(_OWNER_ONLY)
                if partial.is_file():  # a file that a killed run left may be readable by others
                    partial.chmod(_OWNER_ONLY)
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def rename_if_absent(file: Path, name: Path) -> None:
    """Rename a complete file unless the new name exists; of several processes the first one wins.

    Args:
        file: the file, on the same disk; it may lose its old name.
        name: the new name; an existing file of this name is not changed.

    Raises:
        OSError: if the file cannot be renamed.
    """
    try:
        os.link(file, name)  # atomic
    except FileExistsError:
        return
    except OSError:  # some disks (exFAT, network shares) have no hard links
        lock = name.with_name(f".{name.name}.lock")
        with SoftFileLock(lock, timeout=_LOCK_TIMEOUT_SECONDS):
            if not name.exists():
                file.rename(name)


def copy_or_link(file: Path, copy: Path) -> None:
    """Give a file a second name: a hard link where the disk allows it, otherwise a copy.

    Args:
        file: the file.
        copy: the second name; an existing file of this name is replaced.

    Raises:
        OSError: if neither a link nor a copy can be made.
    """
    copy.unlink(missing_ok=True)
    try:
        os.link(file, copy)
    except OSError:  # no hard links, as in `rename_if_absent`
        shutil.copy2(file, copy)
