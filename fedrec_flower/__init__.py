"""Federated recommendation on Flower: honest evaluation, fast cohorts, one command."""

import os

# Neither Flower nor Ray phones home unless the user says so; both read this at import.
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

__version__ = "0.1.0"
