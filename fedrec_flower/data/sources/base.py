"""Interface of data sets, the cache folder and file digests."""

from hashlib import file_digest
from pathlib import Path
from typing import Literal, Protocol

import platformdirs

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.interactions import Interactions

# Handling of a repeated (user, item) pair: raise an error, or keep the latest row.
Duplicates = Literal["error", "last"]

Fingerprint = dict[str, str | int | float | None]


class Dataset(Protocol):
    """Interface of the classes in `conf/dataset/*.yaml`."""

    @property
    def name(self) -> str:
        """Name of the data in tables and figures."""
        ...

    @property
    def cache_path(self) -> Path:
        """The folder for downloads and prepared data; it need not exist yet."""
        ...

    def fingerprint(self) -> Fingerprint:
        """Return the JSON-able values that determine the result of `load`; local files are hashed.

        Raises:
            DataError: if a local file is missing.
        """
        ...

    def load(self) -> Interactions:
        """Read, check and encode the data.

        Raises:
            DataError: if they cannot be found, read or used. Names file, column and line.
        """
        ...


def lists_items(dataset: Dataset) -> bool:
    """Return whether the catalogue is independent of the interactions.

    The ids of such a catalogue reveal no interaction. A dataset declares it by the property
    `lists_items`; without that property, the catalogue is the set of items with interactions.
    """
    return bool(getattr(dataset, "lists_items", False))


def cache_root(cache_dir: str | None) -> Path:
    """Return the configured folder, or else the program's folder in the user's cache folder."""
    if cache_dir:  # an empty path would mean the current folder
        return Path(cache_dir).expanduser()
    return platformdirs.user_cache_path("fedrec_flower", appauthor=False)


def content_digest(path: Path) -> str:
    """Return the SHA-256 of a file's content. Size and time of a file do not identify it.

    Raises:
        DataError: if the file is missing.
    """
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): correct the path") from error
