"""Data: sources, splits, partitions and the prepared dataset."""
