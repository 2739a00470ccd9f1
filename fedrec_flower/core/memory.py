"""Available memory of this process, and a check before an allocation that would not fit."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from fedrec_flower.core.errors import require

_GROUPS = Path("/sys/fs/cgroup")  # Linux only; other systems have no such folder
# Of a control group of version 2, and of version 1: its limit, its usage, its reclaimable pages.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available() -> int:
    """Bytes that this process may still allocate, on this machine and in its control groups."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def require_memory(needed: float, what: str, instead: str) -> None:
    """Raise an error if an allocation would not fit into memory.

    Args:
        needed: bytes.
        what: the part that needs the memory, for the message.
        instead: the fix, for the message.

    Raises:
        ConfigError: states how many bytes are needed and available.
    """
    free = available()
    require(
        needed <= free,
        f"{what} needs about {_gigabytes(needed)} of memory, and {_gigabytes(free)} are "
        f"available: {instead}",
    )


def _gigabytes(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


def _left_in_groups() -> Iterator[int]:
    """Bytes left under each memory limit of the control groups of this process."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = _GROUPS / "memory" if controllers else _GROUPS
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(top):
                yield from _left(folder)


def _left(folder: Path) -> Iterator[int]:
    for limit_file, usage_file, reclaimable in _FILES:
        try:
            limit = (folder / limit_file).read_text(encoding="ascii").strip()
            used = int((folder / usage_file).read_text(encoding="ascii"))
            statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
        except OSError:
            continue
        if limit != "max":
            # The kernel frees cached file pages, which count as used, when memory is short.
            counters = dict(zip(statistics[::2], statistics[1::2], strict=True))
            cached = int(counters.get(reclaimable, "0"))
            yield max(int(limit) - used + cached, 0)
