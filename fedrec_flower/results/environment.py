"""What a run ran on, as far as numbers depend on it: versions, machine, commit.

No path, host name or environment variable enters: run folders are published.
"""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from fedrec_flower.cores import allowed_cores

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
