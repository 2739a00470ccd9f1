"""Verified downloads, and files of a folder or zip archive by name.

Concurrent downloads are safe: each run downloads its own copy into a temporary folder of the cache
and renames it into place after the checksum has been verified.
"""

import errno
import hashlib
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPSHandler, Request, build_opener
from zipfile import BadZipFile, ZipFile, is_zipfile

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.sources.base import content_digest
from fedrec_flower.data.sources.readers import explain_read_errors

_log = logging.getLogger("fedrec_flower")

_CONNECT_SECONDS = 5.0  # a machine without network should not wait
_STALL_SECONDS = 60.0  # a slow connection may
_PIP_SECONDS = 300.0
_BLOCK = 1 << 20  # bytes


class FetchError(Exception):
    """One source failed. The message gives the reason."""


class UnreachableError(DataError):
    """All sources failed."""


@dataclass(frozen=True, slots=True)
class Source:
    """One source of a file.

    Attributes:
        filename: name of the file in the cache.
        digest: published checksum, such as "md5:0e33...". None if there is none: then the checks of
            the archive itself must pass.
        fetch: writes the file to a path. Raises `FetchError` if the source fails.
    """

    filename: str
    digest: str | None
    fetch: Callable[[Path], None]


def fetch_first_available(sources: Sequence[Source], folder: Path, advice: str) -> Path:
    """Return the first source that is in the cache, or else the first that can be downloaded.

    Args:
        sources: sources of the same data, best first.
        folder: folder of downloads; it need not exist.
        advice: end of the error message, the fix if all sources fail.

    Returns:
        The path of a verified file.

    Raises:
        UnreachableError: if all sources fail.
        DataError: if the folder cannot be used.
    """
    with _usable(folder):
        for source in sources:
            if is_intact(folder / source.filename, source.digest):
                return folder / source.filename
        folder.mkdir(parents=True, exist_ok=True)
        failures = []
        for source in sources:
            try:
                return _fetch(source, folder)
            except FetchError as error:
                failures.append(f"{source.filename}: {error}")
    failures += [
        f"{folder / source.filename} is damaged"
        for source in sources
        if (folder / source.filename).exists()
    ]
    wanted = sources[0].filename
    raise UnreachableError(f"{wanted} cannot be fetched ({'; '.join(failures)}): {advice}")


def is_intact(path: Path, digest: str | None) -> bool:
    """Return whether a file is complete: by its checksum, or else by the checks of the archive."""
    if not path.is_file():
        return False
    if digest is None:
        try:
            with ZipFile(path) as archive:
                return archive.testzip() is None
        except (BadZipFile, EOFError):
            return False
    algorithm, _, expected = digest.partition(":")
    with path.open("rb") as stream:
        # Not for security: the publisher offers md5, and it detects damage.
        actual = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return actual.hexdigest() == expected


def fetch_url(url: str, target: Path) -> None:
    """Download the content of an http(s) address.

    Raises:
        FetchError: if the address cannot be reached or the connection breaks.
        OSError: if the target cannot be written.
    """
    with target.open("wb") as file:
        for block in _blocks(url):
            file.write(block)


def fetch_with_pip(requirement: str, target: Path) -> None:
    """Download a wheel into the target's folder by pip with the user's pip settings.

    Raises:
        FetchError: if pip fails or the file has another name.
        OSError: if the disk is full.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--retries=1", "--timeout=10"]
    command += ["--only-binary=:all:", f"--dest={target.parent}", requirement]
    try:
        # The command consists of constants and a path of this program: no shell, no user input.
        result = subprocess.run(  # noqa: S603
            command, check=False, capture_output=True, text=True, timeout=_PIP_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip took more than {_PIP_SECONDS:.0f} seconds") from error
    if os.strerror(errno.ENOSPC) in result.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not target.is_file():
        lines = result.stderr.strip().splitlines() or [f"pip did not download {target.name}"]
        raise FetchError(lines[-1].removeprefix("ERROR: "))


def _fetch(source: Source, folder: Path) -> Path:
    _log.info("Fetching %s into %s", source.filename, folder)
    with TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        part = Path(scratch) / source.filename
        source.fetch(part)
        if not is_intact(part, source.digest):
            raise FetchError("the downloaded file is not the published one: its checksum differs")
        return part.replace(folder / source.filename)


@contextmanager
def _usable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"the cache folder {folder} cannot be used ({error.strerror or error}): "
            "free space there or set dataset.cache_dir=<a folder you may write to>"
        ) from error


class _PatientConnection(HTTPSConnection):
    """A connection with a short timeout for connecting and a long one for reading."""

    def connect(self) -> None:
        super().connect()
        self.sock.settimeout(_STALL_SECONDS)


class _PatientHandler(HTTPSHandler):
    def https_open(self, req: Request) -> Any:
        return self.do_open(_PatientConnection, req)


def _blocks(url: str) -> Iterator[bytes]:
    try:
        opener = build_opener(_PatientHandler)
        with opener.open(url, timeout=_CONNECT_SECONDS) as response:
            while block := response.read(_BLOCK):
                yield block
    except HTTPError as error:
        with error:  # the error object holds the connection
            raise FetchError(str(error)) from error
    except URLError as error:
        raise FetchError(str(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise FetchError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Store:
    """Files of a folder or zip archive by name.

    Attributes:
        path: the folder or zip archive.
        members: file name -> path inside the folder or archive.
    """

    path: Path
    members: dict[str, str]

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open one file for reading bytes.

        Raises:
            KeyError: if the file is not in the store.
            OSError: if it cannot be read.
        """
        if self.path.is_dir():
            with (self.path / self.members[name]).open("rb") as stream:
                yield stream
        else:
            with ZipFile(self.path) as archive, archive.open(self.members[name]) as stream:
                yield stream

    def label(self, name: str) -> str:
        """Return the name of one file for messages."""
        return str(self.path / self.members[name])

    def digest(self) -> str:
        """Return a digest of the content of all files."""
        if not self.path.is_dir():
            return content_digest(self.path)
        return "; ".join(
            f"{name} {content_digest(self.path / place)}"
            for name, place in sorted(self.members.items())
        )


def open_store(path: Path, wanted: Collection[str]) -> Store:
    """Find files in a folder, its subfolders or a zip archive.

    Args:
        path: the folder or archive.
        wanted: names of files, without folders.

    Returns:
        The wanted files that exist.

    Raises:
        DataError: if the path is missing, unreadable, or neither a folder nor a zip archive.
    """
    with explain_read_errors(str(path)):
        if path.is_dir():
            found = [*path.iterdir(), *path.glob("*/*")]
            inside = [file.relative_to(path).as_posix() for file in found]
        else:
            inside = _names_in_zip(path)
    # The file with the shortest path wins if several have the same name.
    deepest_first = sorted(inside, key=lambda name: (-name.count("/"), name))
    by_name = {PurePosixPath(name).name: name for name in deepest_first}
    return Store(path, {name: by_name[name] for name in wanted if name in by_name})


def _names_in_zip(path: Path) -> list[str]:
    with path.open("rb") as stream:
        # Opened first: is_zipfile returns False for a file without read permission.
        if not is_zipfile(stream):
            raise DataError(
                f"{path} is neither a folder nor a whole zip archive: "
                "name the folder or zip that holds the data, or fetch it again"
            )
        with ZipFile(stream) as archive:
            return archive.namelist()
