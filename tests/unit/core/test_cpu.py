"""F9: number of cores that a process may use, by affinity and cgroup quotas."""

import os
from pathlib import Path

import pytest

from fedrec_flower.core.cpu import allowed_cores


@pytest.fixture
def twelve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of twelve cores, all allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))


def _cores(folder: Path, groups: str, files: dict[str, str]) -> int:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "groups").write_text(groups)
    return allowed_cores(folder / "groups", folder)


def test_f9_allowed_cores_respects_the_affinity(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    assert _cores(tmp_path, "", {}) == 1


@pytest.mark.usefixtures("twelve")
@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, 12),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "10000 100000\n"}, 1),
        ("0::/a/b\n", {"a/cpu.max": "400000 100000\n", "a/b/cpu.max": "max 100000\n"}, 4),
        ("0::/not/here\n", {"cpu.max": "300000 100000\n"}, 3),  # a container's own mount
        ("4:memory:/x\n3:cpu,cpuacct:/y\n", {"cpu,cpuacct/y/cpu.cfs_quota_us": "-1\n"}, 12),
        (
            "3:cpu,cpuacct:/y\n",
            {
                "cpu,cpuacct/y/cpu.cfs_quota_us": "500000\n",
                "cpu,cpuacct/y/cpu.cfs_period_us": "100000\n",
            },
            5,
        ),
        ("garbage\n", {"cpu.max": "100000 100000\n"}, 12),
    ],
)
def test_f9_allowed_cores_respects_a_lower_quota(
    tmp_path: Path, groups: str, files: dict[str, str], expected: int
) -> None:
    assert _cores(tmp_path, groups, files) == expected


@pytest.mark.usefixtures("twelve")
def test_f9_allowed_cores_without_cgroups_is_the_affinity(tmp_path: Path) -> None:
    assert allowed_cores(tmp_path / "none", tmp_path) == 12
