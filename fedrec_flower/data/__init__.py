"""Data: sources, splits, partitions and the prepared data set."""
