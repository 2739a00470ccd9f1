"""Peak memory of a run includes its child processes and counts shared pages once."""

import mmap
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from fedrec_flower.experiment.environment import PeakMemory

MEGABYTE = 1_000_000
LARGE = 200  # megabytes

TOUCHING = """
import mmap, sys
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as pages:
    sum(pages[::mmap.PAGESIZE])
    print("touched", flush=True)
    sys.stdin.read()
"""


def peak() -> PeakMemory:
    """A look at this moment."""
    with PeakMemory(interval=60) as memory:
        pass
    return memory


@contextmanager
def child(code: str, *arguments: str) -> Iterator[None]:
    """A child process that has printed a line and waits."""
    command = [sys.executable, "-c", code, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate()


def test_peak_memory_includes_freed_arrays() -> None:
    before = peak().resident_megabytes
    with PeakMemory(interval=0.01) as memory:
        held = np.ones(LARGE * MEGABYTE, np.uint8)
        while memory.resident_megabytes < before + 0.9 * LARGE:
            held[0] = 1
        del held
    assert memory.resident_megabytes > peak().resident_megabytes + 0.8 * LARGE
    assert memory.megabytes > 0.8 * LARGE


def test_peak_memory_includes_child_processes() -> None:
    before = peak()
    code = f"import sys; held = bytearray({LARGE * MEGABYTE}); print('held', flush=True)"
    with child(f"{code}; sys.stdin.read()"):
        during = peak()
    assert during.megabytes > before.megabytes + LARGE
    assert during.resident_megabytes > before.resident_megabytes + LARGE


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells what is shared")
def test_distinct_memory_of_one_process_is_its_resident_memory() -> None:
    # However many strangers use the same libraries.
    alone = peak()
    assert alone.megabytes == pytest.approx(alone.resident_megabytes, rel=0.02)


@pytest.mark.skipif(not psutil.LINUX, reason="only Linux tells what is shared")
def test_shared_pages_of_a_child_count_once(tmp_path: Path) -> None:
    file = tmp_path / "pages"
    file.write_bytes(bytes(LARGE * MEGABYTE))
    with file.open("rb") as pages, mmap.mmap(pages.fileno(), 0, prot=mmap.PROT_READ) as mine:
        sum(mine[:: mmap.PAGESIZE])
        alone = peak()
        with child(TOUCHING, str(file)):
            together = peak()
    assert together.measure == "distinct"
    assert together.resident_megabytes > alone.resident_megabytes + LARGE
    assert together.megabytes < alone.megabytes + LARGE / 2
