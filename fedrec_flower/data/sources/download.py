"""Fetching a file once and verified, so that a half or wrong one is never seen by anybody.

Every fetch writes into its own scratch folder beside the target and is renamed into place, so two
runs that fetch at the same time do the work twice and disturb each other never.

A folder or an archive, read the same way: a file is found by name, whatever folder it is in.
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

_CONNECT_SECONDS = 5.0  # who is offline should not wait
_STALL_SECONDS = 60.0  # who is on a slow line may
_PIP_SECONDS = 300.0
_BLOCK = 1 << 20  # bytes


class FetchError(Exception):
    """One source did not deliver; the message says why."""


class UnreachableError(DataError):
    """No source delivered."""


@dataclass(frozen=True, slots=True)
class Source:
    """One way to get a file.

    Attributes:
        filename: its name in the cache.
        digest: its published checksum, such as "md5:0e33..."; None where none is published:
            then the archive's own checks must pass.
        fetch: writes the file to a path; raises `FetchError` if its origin is to blame.
    """

    filename: str
    digest: str | None
    fetch: Callable[[Path], None]


def fetch_first_available(sources: Sequence[Source], folder: Path, advice: str) -> Path:
    """The first of the sources that lies in the cache, or else the first that can be fetched.

    Args:
        sources: ways to the same data, best first.
        folder: where downloads are kept; it need not exist.
        advice: what to do when nothing can be fetched.

    Returns:
        The path of a verified file.

    Raises:
        UnreachableError: if no source delivers.
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
    """Whether a file is there in full, judged by its checksum or, failing that, as an archive."""
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
        # Not for security: md5 is what the publisher offers, and it tells damage.
        actual = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return actual.hexdigest() == expected


def fetch_url(url: str, target: Path) -> None:
    """Write what an http(s) address holds.

    Raises:
        FetchError: if the address cannot be reached or breaks off.
        OSError: if the target cannot be written.
    """
    with target.open("wb") as file:
        for block in _blocks(url):
            file.write(block)


def fetch_with_pip(requirement: str, target: Path) -> None:
    """Download a wheel into the target's folder with the pip and pip settings of the user.

    Raises:
        FetchError: if pip fails or brings a file of another name.
        OSError: if the disk is full.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--retries=1", "--timeout=10"]
    command += ["--only-binary=:all:", f"--dest={target.parent}", requirement]
    try:
        # The command is the one above, made of constants and a path of ours: no shell, no input.
        result = subprocess.run(  # noqa: S603
            command, check=False, capture_output=True, text=True, timeout=_PIP_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip took more than {_PIP_SECONDS:.0f} seconds") from error
    if os.strerror(errno.ENOSPC) in result.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if not target.is_file():
        said = result.stderr.strip().splitlines() or [f"pip brought no {target.name}"]
        raise FetchError(said[-1].removeprefix("ERROR: "))


def _fetch(source: Source, folder: Path) -> Path:
    _log.info("Fetching %s into %s", source.filename, folder)
    with TemporaryDirectory(prefix=".fetching-", dir=folder) as scratch:
        part = Path(scratch) / source.filename
        source.fetch(part)
        if not is_intact(part, source.digest):
            raise FetchError("what arrived is not the published file, its checksum differs")
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
    """Quick to give up connecting, slow to give up reading."""

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
        with error:  # an answer like any other: it holds the connection
            raise FetchError(str(error)) from error
    except URLError as error:
        raise FetchError(str(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise FetchError(str(error)) from error


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
    with explain_read_errors(str(path)):
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
