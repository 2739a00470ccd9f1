"""Small random cohorts and their updates, for the laws of aggregation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedrec_flower.core.updates import Updates

NUM_ITEMS = 6
SHAPES = {"table": (NUM_ITEMS, 3), "bias": (NUM_ITEMS,), "dense": (2, 2)}
TABLES = ("table", "bias")


@dataclass(frozen=True)
class Client:
    """One client's update: its weight, the rows it touched, random values times a scale."""

    weight: int
    rows: list[int]
    seed: int
    scale: float = 1.0

    @property
    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """The client's update of each parameter."""
        rng, count = np.random.default_rng(self.seed), len(self.rows)
        shapes = {"table": (count, 3), "bias": (count,), "dense": (2, 2)}
        drawn = {name: rng.normal(size=size) * self.scale for name, size in shapes.items()}
        return {name: value.astype(np.float32) for name, value in drawn.items()}

    def whole(self, name: str) -> NDArray[np.float32]:
        """A tensor in its full shape: zero in rows that the client did not touch."""
        full = np.zeros(SHAPES[name], np.float32)
        full[self.rows if name in TABLES else ...] = self.tensors[name]
        return full


def cohorts(least: int = 1, most: int = 5) -> st.SearchStrategy[list[Client]]:
    """Lists of clients with different seeds."""
    rows = st.sets(st.integers(0, NUM_ITEMS - 1)).map(sorted)
    client = st.builds(Client, st.integers(1, 50), rows, st.integers(0, 2**32))
    return st.lists(client, min_size=least, max_size=most, unique_by=lambda one: one.seed)


def updates(cohort: Sequence[Client]) -> Updates:
    """The updates of the cohort, one client after another."""
    each = [client.tensors for client in cohort]
    tensors = {name: np.concatenate([one[name] for one in each]) for name in TABLES}
    tensors["dense"] = np.stack([one["dense"] for one in each])
    return Updates(
        clients=np.arange(len(cohort)),
        weights=np.array([client.weight for client in cohort], np.float64),
        offsets=np.cumsum([0, *(len(client.rows) for client in cohort)]),
        rows=np.array([row for client in cohort for row in client.rows], np.int64),
        tensors=tensors,
    )
