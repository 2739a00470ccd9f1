"""Writing files so that a killed run, or a full disk, leaves no half of one behind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedrec_flower.errors import FedrecError


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
def replacing(path: Path) -> Iterator[Path]:
    """Give a file to write to that takes the place of `path` only when it is whole.

    Raises:
        FedrecError: if the file cannot be written; what stood in its place still stands.
    """
    partial = path.with_name(f".{path.name}.partial")
    with explained(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
