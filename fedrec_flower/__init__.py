"""Federated recommendation on Flower: leakage-free evaluation and fast training of many clients."""

import os

# Flower and Ray send telemetry by default; both read these settings at import.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# By default Ray aborts the process at SIGTERM; here SIGTERM ends a run in the same way as Ctrl-C.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")

__version__ = "0.1.0"
