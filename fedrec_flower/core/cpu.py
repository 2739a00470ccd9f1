"""Number of CPU cores that this process may use, which may be fewer than the machine has."""

import os
from math import ceil
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CGROUP_FIELDS = 3  # number, controllers, path


def allowed_cores(groups: Path = Path("/proc/self/cgroup"), root: Path = _CGROUP) -> int:
    """Count the cores that this process may use: its affinity, or its cgroup quota if lower.

    Args:
        groups: the file that lists the cgroups of the process (Linux only).
        root: where the cgroups are mounted (Linux only).

    Returns:
        At least 1; a quota of 1.5 cores counts as 2.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS has neither affinities nor cgroups
        cores = os.cpu_count() or 1
    quotas = [_quota(folder) for folder in _folders(groups, root)]
    limits = [ceil(quota) for quota in quotas if quota is not None]
    return max(1, min([cores, *limits]))


def _folders(groups: Path, root: Path) -> list[Path]:
    """Folders of the CPU cgroup of this process and of its parents, for cgroups v1 and v2."""
    try:
        lines = [line.split(":", 2) for line in groups.read_text().splitlines()]
    except OSError:
        return []
    folders: list[Path] = []
    for fields in lines:
        if len(fields) != _CGROUP_FIELDS:
            continue
        _, controllers, path = fields
        if not controllers or "cpu" in controllers.split(","):
            mount = root / controllers
            group = mount / path.lstrip("/")
            parents = [parent for parent in group.parents if parent.is_relative_to(mount)]
            # In a container the path may be the one outside: then only the mount itself exists.
            folders += [group, *parents, mount]
    return folders


def _quota(folder: Path) -> float | None:
    """Number of cores that a cgroup allows; None if it sets no limit or does not exist."""
    try:
        if (limit := folder / "cpu.max").exists():
            quota, period = limit.read_text().split()
        else:
            quota = (folder / "cpu.cfs_quota_us").read_text()
            period = (folder / "cpu.cfs_period_us").read_text()
        return int(quota) / int(period) if int(quota) > 0 else None
    except (OSError, ValueError):  # no such file, or "max"
        return None
