"""Fixtures for compression tests: small cohorts, one compression of each kind, residuals."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.compression.base import Compression, NoCompression
from fedrec_flower.communication.compression.error_feedback import ResidualStore
from fedrec_flower.communication.compression.int8 import Int8
from fedrec_flower.communication.compression.low_rank import LowRank
from fedrec_flower.communication.compression.sparse_rows import SparseRows
from fedrec_flower.communication.compression.top_k import TopK
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Sums
from fedrec_flower.core.updates import Updates

NUM_ITEMS = 30
SHAPES = {"table": (NUM_ITEMS, 4, 3), "matrix": (9, 10), "bias": (NUM_ITEMS, 1), "vector": (3,)}
TABLES = frozenset({"table", "bias"})
EVERY_ROW = list(range(NUM_ITEMS))

COMPRESSIONS: dict[str, Compression] = {
    "none": NoCompression(NUM_ITEMS),
    "sparse_rows": SparseRows(NUM_ITEMS),
    "int8": Int8(NUM_ITEMS),
    "topk": TopK(NUM_ITEMS, share=0.3, error_feedback=True),
    "topk_few": TopK(NUM_ITEMS, share=0.01, error_feedback=True),
    "lowrank": LowRank(NUM_ITEMS, rank=2, power_iterations=1, error_feedback=True),
}

touched = st.lists(st.integers(0, NUM_ITEMS - 1), unique=True).map(sorted)
cohorts = st.lists(touched, min_size=1, max_size=4)


def cohort(rows: Sequence[Sequence[int]], seed: int = 0) -> Updates:
    """Updates of clients 10, 11, ... that touch these rows."""
    rng, num_clients = np.random.default_rng(seed), len(rows)
    offsets = np.cumsum([0, *map(len, rows)])
    sizes = {
        name: (offsets[-1], *shape[1:]) if name in TABLES else (num_clients, *shape)
        for name, shape in SHAPES.items()
    }
    return Updates(
        clients=np.arange(num_clients) + 10,
        weights=np.arange(1.0, num_clients + 1),
        offsets=offsets,
        rows=np.array([row for client_rows in rows for row in client_rows], np.int64),
        tensors={name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()},
    )


def of_matrix(matrix: NDArray[np.float32], num_clients: int = 1) -> Updates:
    """Updates of clients that all send the same rows of a table: items 0, 1, ..."""
    num_rows = len(matrix)
    return Updates(
        clients=np.arange(num_clients),
        weights=np.ones(num_clients),
        offsets=np.arange(num_clients + 1) * num_rows,
        rows=np.tile(np.arange(num_rows), num_clients),
        tensors={"table": np.tile(matrix, (num_clients, 1))},
    )


def decoded(compression: Compression, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the decoded rows of one client's table."""
    sent, _ = compression.compress(of_matrix(matrix), TABLES, rng_for)
    return sent.tensors["table"]


def alone(updates: Updates, place: int) -> Updates:
    """Return the updates of one client only."""
    return updates.select(np.array([place]), TABLES)


def rng_for(client: int) -> np.random.Generator:
    """Return the generator that an experiment uses in one round."""
    return generator(4, "compression", 2, client)


class Residuals(ResidualStore):
    """Clients' residuals in whole tables; implements `ResidualStore`."""

    def __init__(self, num_clients: int) -> None:
        self.whole = {
            name: np.zeros((num_clients, *shape), np.float32) for name, shape in SHAPES.items()
        }

    @override
    def read(self, name: str, updates: Updates) -> NDArray[np.float32]:
        return self.whole[name][self._place(name, updates)]

    @override
    def write(self, name: str, updates: Updates, array: NDArray[np.float32]) -> None:
        self.whole[name][self._place(name, updates)] = array

    @staticmethod
    def _place(name: str, updates: Updates) -> tuple[NDArray[np.int64], ...]:
        clients = updates.clients - 10
        return (clients[updates.owners], updates.rows) if name in TABLES else (clients,)


def add_whole(total: Sums, updates: Updates) -> None:
    """Add each client's update to this client's sum, in whole tables."""
    for name, array in updates.tensors.items():
        total.setdefault(name, np.zeros((len(updates.clients), *SHAPES[name])))
        place = (updates.owners, updates.rows) if name in TABLES else ...
        total[name][place] += array
