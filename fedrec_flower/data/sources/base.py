"""What every dataset offers, and the two things all of them need: a cache and file digests."""

from hashlib import file_digest
from pathlib import Path
from typing import Literal, Protocol

import platformdirs

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.interactions import Interactions

# What to do when a user met an item twice: refuse, or keep the latest of the two.
Duplicates = Literal["error", "last"]

Fingerprint = dict[str, str | int | float | None]


class Dataset(Protocol):
    """What every class named by a `conf/dataset/*.yaml` offers."""

    @property
    def name(self) -> str:
        """What to call the data in tables and figures."""
        ...

    @property
    def cache_path(self) -> Path:
        """The folder for downloads and prepared data; it need not exist yet."""
        ...

    def fingerprint(self) -> Fingerprint:
        """Everything that determines what `load` returns, JSON-able; local files are hashed.

        Raises:
            DataError: if a local file it would read is not there.
        """
        ...

    def load(self) -> Interactions:
        """Read, check and encode the data.

        Raises:
            DataError: if they cannot be found, read or used; names file, column and line.
        """
        ...


def lists_items(dataset: Dataset) -> bool:
    """Whether the catalogue is known without the interactions, so that its ids tell nothing.

    A dataset says so by a property `lists_items`; one that does not takes the items that its
    interactions name.
    """
    return bool(getattr(dataset, "lists_items", False))


def cache_root(cache_dir: str | None) -> Path:
    """The folder a user chose, or else this program's place in the user's own cache folder."""
    if cache_dir:  # an empty one would litter wherever the user stands
        return Path(cache_dir).expanduser()
    return platformdirs.user_cache_path("fedrec_flower", appauthor=False)


def content_digest(path: Path) -> str:
    """SHA-256 of a file: a file saved again with equal size and time is another file all the same.

    Raises:
        DataError: if the file is not there.
    """
    try:
        with path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): correct the path") from error
