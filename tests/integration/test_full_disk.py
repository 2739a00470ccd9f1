"""A disk that is really full, where the machine lets us make a small one."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

    Start = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system of so many kilobytes, in memory."""
    mount, unmount = which("mount"), which("umount")
    options = ["-t", "tmpfs", "-o", f"size={request.param}k", "tmpfs", str(tmp_path)]
    if not (mount and unmount and subprocess.run([mount, *options], check=False).returncode == 0):
        pytest.skip("mounting a small file system needs root's rights")
    yield tmp_path
    subprocess.run([unmount, str(tmp_path)], check=True)


@pytest.mark.parametrize(
    ("small_disk", "word"),
    [
        pytest.param(160, "model.embedding_dim=64", id="the model"),
        pytest.param(1024, "model.embedding_dim=2048", id="personal parameters"),
    ],
    indirect=["small_disk"],
)
def test_full_disk_is_one_error(
    in_terminal: "Start", smoke: tuple[str, ...], small_disk: Path, word: str
) -> None:
    folder = small_disk / "run"
    process = in_terminal(*smoke, word, f"output_dir={folder}", cwd=small_disk)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    said = err.splitlines()[-1]
    assert said.startswith("error: ")
    assert str(folder) in said
    assert "No space left on device" in said
    assert "Traceback" not in err
    assert json.loads((folder / "summary.json").read_text())["status"] in ("failed", "running")
