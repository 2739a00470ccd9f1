import errno
import os
from collections.abc import Callable, Iterator
from functools import partial
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Barrier, Thread
from zipfile import ZipFile

import pytest

from fedrec_flower.core.errors import DataError
from fedrec_flower.data.sources.download import (
    FetchError,
    Source,
    UnreachableError,
    fetch_first_available,
    fetch_url,
    fetch_with_pip,
)

CONTENT = b"some data" * 1000
DIGEST = f"md5:{md5(CONTENT, usedforsecurity=False).hexdigest()}"
NOWHERE = "http://127.0.0.1:1/data"  # nobody listens on port 1


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/data" else 404)
        self.end_headers()
        self.wfile.write(CONTENT)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = Thread(target=http.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()
        thread.join()


def source(url: str, digest: str | None = DIGEST, name: str = "data.bin") -> Source:
    return Source(name, digest, partial(fetch_url, url))


def made_by(fetch: Callable[[Path], object]) -> Source:
    def do(target: Path) -> None:
        fetch(target)

    return Source("data.bin", DIGEST, do)


def test_what_was_fetched_is_there_and_nothing_else(server: str, tmp_path: Path) -> None:
    path = fetch_first_available([source(f"{server}/data")], tmp_path / "new" / "folder", "")
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]


def test_what_lies_in_the_cache_is_not_fetched_again(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    assert fetch_first_available([source(NOWHERE)], tmp_path, "") == tmp_path / "data.bin"


def test_a_cached_second_source_spares_the_first(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT)
    sources = [source(NOWHERE, name="better.bin"), source(NOWHERE)]
    assert fetch_first_available(sources, tmp_path, "") == tmp_path / "data.bin"


def test_a_damaged_file_is_replaced(server: str, tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    assert fetch_first_available([source(f"{server}/data")], tmp_path, "").read_bytes() == CONTENT


def test_the_second_source_steps_in_for_the_first(server: str, tmp_path: Path) -> None:
    sources = [source(NOWHERE, name="better.bin"), source(f"{server}/data")]
    assert fetch_first_available(sources, tmp_path, "") == tmp_path / "data.bin"


def test_offline_says_what_was_tried_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match=r"data\.bin: .*refused.*: carry it here by hand"):
        fetch_first_available([source(NOWHERE)], tmp_path, "carry it here by hand")
    (tmp_path / "data.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(UnreachableError, match=r"data\.bin cannot.*/data\.bin is damaged"):
        fetch_first_available([source(NOWHERE)], tmp_path, "")


def test_a_wrong_file_and_a_missing_one_never_become_visible(server: str, tmp_path: Path) -> None:
    sources = [source(f"{server}/data", "md5:0"), source(f"{server}/other")]
    with pytest.raises(UnreachableError, match=r"its checksum differs.*404"):
        fetch_first_available(sources, tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def test_without_a_checksum_the_archive_must_be_whole(tmp_path: Path) -> None:
    with ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("inside", "text")
    plain = source(NOWHERE, None, "a.zip")
    assert fetch_first_available([plain], tmp_path, "") == tmp_path / "a.zip"
    whole = (tmp_path / "a.zip").read_bytes()
    for broken in (whole[:-1], whole.replace(b"text", b"tent")):
        (tmp_path / "a.zip").write_bytes(broken)
        with pytest.raises(UnreachableError, match="damaged"):
            fetch_first_available([plain], tmp_path, "")


def test_two_fetches_at_the_same_time_both_succeed(tmp_path: Path) -> None:
    both_write = Barrier(2, timeout=10)

    def fetch(target: Path) -> None:
        target.write_bytes(CONTENT[:100])
        both_write.wait()
        target.write_bytes(CONTENT)
        both_write.wait()

    found: list[bytes] = []

    def run() -> None:
        found.append(fetch_first_available([made_by(fetch)], tmp_path, "").read_bytes())

    threads = [Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [CONTENT, CONTENT]
    assert [path.name for path in tmp_path.iterdir()] == ["data.bin"]


def test_an_interrupted_fetch_leaves_nothing(tmp_path: Path) -> None:
    def fetch(target: Path) -> None:
        target.write_bytes(CONTENT)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_first_available([made_by(fetch)], tmp_path, "")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_and_an_unusable_folder_are_told(tmp_path: Path) -> None:
    def fill(target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)

    with pytest.raises(DataError, match=r"No space left.*free space there or set dataset\.cache"):
        fetch_first_available([made_by(fill)], tmp_path, "")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cache folder .*file cannot be used"):
        fetch_first_available([source(NOWHERE)], tmp_path / "file", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_a_disk_that_fills_up_is_no_fault_of_the_server(server: str) -> None:
    with pytest.raises(OSError, match="No space left"):
        fetch_url(f"{server}/data", Path("/dev/full"))


def test_pip_brings_a_wheel_or_says_why_not(tmp_path: Path) -> None:
    wheel = tmp_path / "there" / "tiny-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    with ZipFile(wheel, "w") as archive:
        info = "tiny-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    fetch_with_pip(str(wheel), tmp_path / wheel.name)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
    with pytest.raises(FetchError, match="Invalid requirement"):
        fetch_with_pip("no requirement at all", tmp_path / "none.whl")
    with pytest.raises(FetchError, match=r"pip did not download other\.whl"):
        fetch_with_pip(str(wheel), tmp_path / "other.whl")
