"""How many cores this process may use, which may be fewer than the machine has."""

import os
from math import ceil
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def allowed_cores(groups: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP) -> int:
    """Count the cores that this process may use: its affinity, or its cgroup's quota if lower.

    Args:
        groups: the file that names the process's cgroups; Linux only, as all of this.
        root: where the cgroups are mounted.

    Returns:
        At least 1; a quota of 1.5 cores counts as 2.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS has neither affinities nor cgroups
        cores = os.cpu_count() or 1
    quotas = [quota for folder in _folders(groups, root) if (quota := _quota(folder)) is not None]
    return max(1, min([cores, *(ceil(quota) for quota in quotas)]))


def _folders(groups: Path, root: Path) -> list[Path]:
    """The process's cgroup of CPUs and those around it, in version 2 or 1 of cgroups."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return []
    folders: list[Path] = []
    for _, controllers, path in (line for line in lines if len(line) == 3):  # noqa: PLR2004  # number, controllers, path
        if not controllers or "cpu" in controllers.split(","):
            below = root / controllers
            own = below / path.lstrip("/")
            # In a container the path may be that outside: then only the mount itself is there.
            folders += [own, *(p for p in own.parents if p.is_relative_to(below)), below]
    return folders


def _quota(folder: Path) -> float | None:
    """Cores that a cgroup allows; None for no limit, or where nothing says."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None
