"""Writing files so that a killed run or a full disk leaves no half of one; text on any terminal."""

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

_PRIVATE = 0o600
_PATIENCE = 60.0  # seconds; a killed process may leave a lock behind
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def inside(folder: Path, name: str) -> Path:
    """A file or folder directly inside a folder, whoever gives its name.

    Args:
        folder: the folder.
        name: of up to 64 letters, digits, dots, underscores and hyphens; the first is a letter
            or a digit.

    Raises:
        FedrecError: if the name is another, such as one that leads out of the folder.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise FedrecError(f"{name!r} is not the name of a file: use letters, digits, '-' and '_'")
    return folder / name


def print_anything() -> None:
    """Let stdout and stderr print any text: what their encoding lacks is printed as "?"."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's refusal to write a file into a sentence with a mend.

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
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` only when it is whole.

    Args:
        path: the file.
        private: whether it holds data of users: only its owner may read it, from the first byte on.

    Raises:
        FedrecError: if the file cannot be written; what stood in its place still stands.
    """
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            if private:
                partial.touch(_PRIVATE)
                if partial.is_file():  # one left by a killed run may be readable by others
                    partial.chmod(_PRIVATE)
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def give_name(file: Path, name: Path) -> None:
    """Give a whole file a name unless the name is taken; of several processes, the first one wins.

    Args:
        file: the file, on the same disk; it may lose its own name.
        name: the new name; whatever has it already stays.

    Raises:
        OSError: if it cannot be done.
    """
    try:
        os.link(file, name)  # it appears at once or not at all
    except FileExistsError:
        return
    except OSError:  # some disks (exFAT, network shares) have no hard links
        with SoftFileLock(name.with_name(f".{name.name}.lock"), timeout=_PATIENCE):
            if not name.exists():
                file.rename(name)


def copy_or_link(file: Path, copy: Path) -> None:
    """Let a second name hold what a file holds, without a second copy where the disk allows it.

    Args:
        file: the file.
        copy: the other name; what it held is replaced.

    Raises:
        OSError: if it cannot be done.
    """
    copy.unlink(missing_ok=True)
    try:
        os.link(file, copy)
    except OSError:  # see `give_name`
        shutil.copy2(file, copy)
