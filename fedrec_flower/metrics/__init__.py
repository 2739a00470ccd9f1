"""Metrics: pure functions of ranks, rating errors and recommendation lists."""
