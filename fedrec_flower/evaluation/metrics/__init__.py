"""Metrics: ranking accuracy, beyond accuracy, fairness; ranking metrics are found by name."""
