"""A folder or an archive, read the same way: a file is found by name, whatever folder it is in."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import ZipFile, is_zipfile

from fedrec_flower.datasets.base import content_digest
from fedrec_flower.datasets.tables import readable
from fedrec_flower.errors import DataError


@dataclass(frozen=True, slots=True)
class Store:
    """Files by name.

    Attributes:
        path: the folder or zip archive.
        members: name of each file -> where it is inside.
    """

    path: Path
    members: dict[str, str]

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """The bytes of one file.

        Raises:
            KeyError: if there is no such file.
            OSError: if it cannot be read.
        """
        if self.path.is_dir():
            with (self.path / self.members[name]).open("rb") as stream:
                yield stream
        else:
            with ZipFile(self.path) as archive, archive.open(self.members[name]) as stream:
                yield stream

    def label(self, name: str) -> str:
        """What to call one file in messages."""
        return str(self.path / self.members[name])

    def digest(self) -> str:
        """Changes with the content of any of the files."""
        if not self.path.is_dir():
            return content_digest(self.path)
        return "; ".join(
            f"{name} {content_digest(self.path / place)}"
            for name, place in sorted(self.members.items())
        )


def open_store(path: Path, wanted: Collection[str]) -> Store:
    """Look for files in a folder, its subfolders or a zip archive.

    Args:
        path: the folder or archive.
        wanted: names of files, without folders.

    Returns:
        Those of the wanted files that are there.

    Raises:
        DataError: if the path is missing, unreadable, or neither a folder nor a zip archive.
    """
    with readable(str(path)):
        if path.is_dir():
            found = [*path.iterdir(), *path.glob("*/*")]
            inside = [file.relative_to(path).as_posix() for file in found]
        else:
            inside = _names_in_zip(path)
    # Shallow first, so that a file in the folder itself wins over its namesake further down.
    deepest_first = sorted(inside, key=lambda name: (-name.count("/"), name))
    by_name = {PurePosixPath(name).name: name for name in deepest_first}
    return Store(path, {name: by_name[name] for name in wanted if name in by_name})


def _names_in_zip(path: Path) -> list[str]:
    with path.open("rb") as stream:
        # Opened first, for is_zipfile takes a file it may not read for no zip.
        if not is_zipfile(stream):
            raise DataError(
                f"{path} is neither a folder nor a whole zip archive: "
                "name the folder or zip that holds the data, or fetch it again"
            )
        with ZipFile(stream) as archive:
            return archive.namelist()
