"""Metrics: pure functions of ranks and of recommendation lists."""
