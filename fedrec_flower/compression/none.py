"""The plain message: nothing is lost, nothing is clever."""

from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import ROW_WEIGHT, Cost, Updates, pack
from fedrec_flower.compression.base import Compression, RngFor, Tensors
from fedrec_flower.compression.parts import in_numpy_format


@dataclass(frozen=True, slots=True)
class NoCompression(Compression):
    """What a client alone on its node sends: `aggregation.pack` of its update.

    Whole tables as in textbook FedAvg, or the touched rows if these are fewer bytes; and the
    weight of each row.

    Attributes:
        num_items: rows of a whole table.
    """

    num_items: int

    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, NDArray[np.int64]]:
        """See `Compression.compress`; the updates themselves."""
        del rng_for
        # Of what is sent the shape tells enough.
        nothing = np.float32(0)
        arrays = {n: np.broadcast_to(nothing, s) for n, s in self._shapes(updates, tables).items()}
        weights = {ROW_WEIGHT: np.zeros(self.num_items)}
        cost = Cost.of(arrays | weights, [*tables, ROW_WEIGHT])
        return updates, cost.least(np.diff(updates.offsets))

    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """See `Compression.encode`; the packed arrays in numpy's file format, one by one."""
        del rng_for
        clients = [updates.select(np.array([p]), tables) for p in range(len(updates.clients))]
        return [self._message(client, tables) for client in clients]

    def decode(
        self, message: bytes, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> tuple[NDArray[np.int64], Tensors]:
        """See `Compression.decode`."""
        file = BytesIO(message)
        tensors = {name: np.load(file) for name in shapes}
        weights = np.load(file)
        if file.tell() < len(message):  # rows were left out, and this says which were not
            rows = np.load(file).astype(np.int64)
            return rows, {n: a if n in tables else a[None] for n, a in tensors.items()}
        rows = np.flatnonzero(weights)
        return rows, {n: a[rows] if n in tables else a[None] for n, a in tensors.items()}

    def _message(self, client: Updates, tables: frozenset[str]) -> bytes:
        whole = {}
        for name, shape in self._shapes(client, tables).items():
            whole[name] = np.zeros(shape, np.float32)
            whole[name][client.rows if name in tables else ...] = client.tensors[name]
        weights = np.zeros(self.num_items)
        weights[client.rows] = client.weights[0]
        arrays, _ = pack({**whole, ROW_WEIGHT: weights}, [*tables, ROW_WEIGHT])
        return b"".join(in_numpy_format(array) for array in arrays.values())

    def _shapes(self, updates: Updates, tables: frozenset[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole parameters."""
        return {
            name: (self.num_items, *array.shape[1:]) if name in tables else array.shape[1:]
            for name, array in updates.tensors.items()
        }
