"""Metrics: ranking accuracy, beyond accuracy, fairness."""
