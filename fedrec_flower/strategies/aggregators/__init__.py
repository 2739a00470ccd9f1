"""Aggregation rules as pure functions on arrays."""
