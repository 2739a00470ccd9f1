"""What a run ran on, as far as numbers depend on it: versions, machine, commit.

No path, host name or environment variable enters: run folders are published.

Peak memory of a run, worker processes included.
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
    """Name the git commit that a checkout stands at.

    Args:
        checkout: the checkout's top folder; default the one this file lies in.

    Returns:
        40 hex digits, "-dirty" behind them if tracked files were changed since; None where the
        folder is not the top of a checkout (an installed wheel) or git is missing.
    """
    # A wheel may lie inside a virtual environment inside somebody else's checkout.
    if not (checkout / ".git").exists():
        return None
    try:
        done = subprocess.run(
            # S607 wants a full path, but where git lies is the user's affair.
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
_PRIVATE, _SHARED = (b"Private_Clean:", b"Private_Dirty:"), (b"Shared_Clean:", b"Shared_Dirty:")
_File = tuple[bytes, ...]  # device and inode


class PeakMemory:
    """Looks at the memory of this process and its children while the context lasts.

    Two figures, each the highest seen. *Resident* adds up resident sets: a page of a library
    counts once for every process of the run that uses it. *Distinct* counts it once for the run,
    which is what the run takes of the machine. (Proportional set sizes would do so too, but they
    shrink when strangers on the machine use the same library.) Only Linux tells the latter.

    Args:
        interval: seconds between looks.
    """

    measure: Literal["distinct", "resident"] = "distinct" if psutil.LINUX else "resident"

    def __init__(self, interval: float = 0.5) -> None:
        self._interval, self._resident, self._distinct = interval, 0, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        """Begin to look."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Look a last time."""
        self._stop.set()
        self._thread.join()
        self._look()

    @property
    def resident_megabytes(self) -> float:
        """The highest sum of resident sets, in megabytes (10**6 bytes)."""
        return self._resident / 1e6

    @property
    def megabytes(self) -> float:
        """The same by `measure`, in megabytes (10**6 bytes)."""
        return (self._distinct if self.measure == "distinct" else self._resident) / 1e6

    def _watch(self) -> None:
        while not self._stop.wait(self._interval):
            self._look()

    def _look(self) -> None:
        this = psutil.Process()
        processes = [this, *this.children(recursive=True)]
        resident = sum(_resident(process) for process in processes)
        if resident > self._resident:
            self._resident = resident
            # Takes milliseconds a process, and so is asked for at new heights only.
            if self.measure == "distinct":
                self._distinct = max(self._distinct, _distinct(processes))


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:  # it ended between being listed and being asked
        return 0


def _distinct(processes: Iterable[psutil.Process]) -> int:
    """Bytes of all processes, what they share of a file counted once."""
    total, shared = 0, Counter[_File]()
    for process in processes:
        try:
            private, of_files = _mapped(process.pid)
        except OSError:  # it ended between being listed and being asked
            continue
        total += private
        shared |= of_files  # the larger of two counts
    return total + shared.total()


def _mapped(pid: int) -> tuple[int, Counter[_File]]:
    """Bytes that a process has for itself, and by file those that it shares with any other.

    Source: proc(5), /proc/pid/smaps.
    """
    private, shared = 0, Counter[_File]()
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
