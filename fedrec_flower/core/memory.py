"""How much memory this process may still take, and a refusal where that is too little."""

from collections.abc import Iterator
from pathlib import Path

import psutil

from fedrec_flower.core.errors import require

_GROUPS = Path("/sys/fs/cgroup")  # Linux; elsewhere there is none
# Of a control group of version 2, and of version 1: its limit, what it uses, its statistics.
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)


def available() -> int:
    """Bytes that this process may still take, on this machine and in its control groups."""
    return min([int(psutil.virtual_memory().available), *_left_in_groups()])


def require_memory(needed: float, what: str, instead: str) -> None:
    """Refuse what does not fit, before it is begun.

    Args:
        needed: bytes.
        what: needs them.
        instead: what to choose.

    Raises:
        ConfigError: says how many bytes are needed and available.
    """
    free = available()
    require(
        needed <= free,
        f"{what} needs about {_said(needed)} of memory, and {_said(free)} are available: {instead}",
    )


def _said(num_bytes: float) -> str:
    return f"{num_bytes / 1e9:,.1f} GB"


def _left_in_groups() -> Iterator[int]:
    """What is left of each memory limit around this process."""
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
    for limit, used, reclaimed in _FILES:
        try:
            most, taken = ((folder / name).read_text(encoding="ascii") for name in (limit, used))
            statistics = (folder / "memory.stat").read_text(encoding="ascii").split()
        except OSError:
            continue
        if most.strip() != "max":
            # The system gives back pages of files, which count as used, when memory is short.
            cached = dict(zip(statistics[::2], statistics[1::2], strict=True)).get(reclaimed, "0")
            yield max(int(most) - int(taken) + int(cached), 0)
