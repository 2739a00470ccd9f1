"""Federated recommendation on Flower: honest evaluation, fast cohorts, one command."""

import os

# Neither Flower nor Ray phones home unless the user says so; both read this at import.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Ray would abort the process at SIGTERM, which ends a run as Ctrl-C does.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")

__version__ = "0.1.0"
