"""Environment of a run (versions, machine, commit), and its peak memory.

Paths, host names and environment variables are not recorded, because run folders are published.
"""

import platform
import subprocess
import threading
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import psutil

from fedrec_flower.core.cpu import allowed_cores

_PACKAGES = ("fedrec-flower", "torch", "flwr", "ray", "numpy", "pandas", "hydra-core")
_CHECKOUT = Path(__file__).resolve().parents[2]


def environment() -> dict[str, Any]:
    """Describe the software and the machine of this process.

    Returns:
        versions {package: version, None if not installed}, platform (system and processor),
        cores (logical, those that this process may use), memory_gib (of the machine) and commit
        (see `commit`).
    """
    return {
        "versions": {"python": platform.python_version()} | {p: _version(p) for p in _PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
        "cores": allowed_cores(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "commit": commit(),
    }


def commit(checkout: Path = _CHECKOUT) -> str | None:
    """Return the git commit of a checkout.

    Args:
        checkout: the top folder of the checkout; by default the one with this file.

    Returns:
        40 hex digits, followed by "-dirty" if tracked files have changed; None if the folder is not
        the top of a checkout (an installed wheel) or git is missing.
    """
    # A wheel may be in a virtual environment inside the checkout of another project.
    if not (checkout / ".git").exists():
        return None
    try:
        done = subprocess.run(
            # S607 requires a full path, but the path of git depends on the machine.
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],  # noqa: S607
            cwd=checkout,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


_KIBIBYTE = 1024
_PRIVATE = (b"Private_Clean:", b"Private_Dirty:")
_SHARED = (b"Shared_Clean:", b"Shared_Dirty:")
_File = tuple[bytes, ...]  # device and inode


class PeakMemory:
    """Samples the memory of this process and its children while the context lasts.

    It records the maximum of two measures. *Resident* is the sum of resident sets: a page of a
    library counts once for every process of the run that uses it. *Distinct* counts it once for
    the run, which is the memory that the run takes from the machine. (Proportional set sizes are
    not used, because they shrink when other users of the machine use the same library.) *Distinct*
    is available on Linux only.

    Args:
        interval: seconds between samples.
    """

    measure: Literal["distinct", "resident"] = "distinct" if psutil.LINUX else "resident"

    def __init__(self, interval: float = 0.5) -> None:
        self._interval = interval
        self._resident = 0  # bytes
        self._distinct = 0  # bytes
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Start sampling."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop, after a last sample."""
        self._stop.set()
        self._thread.join()
        self._sample()

    @property
    def resident_megabytes(self) -> float:
        """Maximum of the sum of resident sets, in megabytes (10**6 bytes)."""
        return self._resident / 1e6

    @property
    def megabytes(self) -> float:
        """Maximum of the measure `measure`, in megabytes (10**6 bytes)."""
        return (self._distinct if self.measure == "distinct" else self._resident) / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        this = psutil.Process()
        processes = [this, *this.children(recursive=True)]
        resident = sum(_resident(process) for process in processes)
        if resident > self._resident:
            self._resident = resident
            # It takes milliseconds per process, so it is measured only at a new maximum.
            if self.measure == "distinct":
                self._distinct = max(self._distinct, _distinct(processes))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # the process has ended
        return 0


def _distinct(processes: Iterable[psutil.Process]) -> int:
    """Bytes of all processes; shared pages of a file count once."""
    total = 0
    shared: Counter[_File] = Counter()
    for process in processes:
        try:
            private, of_files = _mapped(process.pid)
        except OSError:  # the process has ended
            continue
        total += private
        shared |= of_files  # the maximum of both counts
    return total + shared.total()


def _mapped(pid: int) -> tuple[int, Counter[_File]]:
    """Private bytes of a process, and by file the bytes that it shares with other processes.

    Source: proc(5), /proc/pid/smaps.
    """
    private = 0
    shared: Counter[_File] = Counter()
    file: _File = ()
    with Path(f"/proc/{pid}/smaps").open("rb") as lines:
        for line in lines:
            words = line.split()
            if not words[0].endswith(b":"):  # a mapping: addresses, rights, offset, device, inode
                # Without a file, pages shared since a fork count for each process.
                file = (words[3], words[4]) if words[4] != b"0" else (b"%d" % pid,)
            elif words[0] in _PRIVATE:
                private += int(words[1]) * _KIBIBYTE
            elif words[0] in _SHARED:
                shared[file] += int(words[1]) * _KIBIBYTE
    return private, shared
