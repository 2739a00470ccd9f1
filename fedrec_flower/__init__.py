"""Federated recommendation on Flower: leakage-free evaluation and fast training of many clients.

Public API: `run(overrides)` runs an experiment, `load_run(folder)` reads a run folder; both return
a `Run`. They are imported at first use, so that `import fedrec_flower` is fast.
"""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fedrec_flower.experiment.api import Run, load_run, run

# Flower and Ray send telemetry by default; both read these settings at import.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# By default Ray aborts the process at SIGTERM; here SIGTERM ends a run in the same way as Ctrl-C.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")

__version__ = "0.1.0"

__all__ = ["Run", "__version__", "load_run", "run"]


def __getattr__(name: str) -> Any:
    """Import the public API at first use."""
    if name in ("Run", "load_run", "run"):
        from fedrec_flower.experiment import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
