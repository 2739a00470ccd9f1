"""What most compressions share: touched rows alone travel, and each parameter goes by itself."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import Updates
from fedrec_flower.compression.base import Compression, RngFor, Tensors
from fedrec_flower.compression.layout import Layout, layouts
from fedrec_flower.compression.parts import (
    Numbers,
    Part,
    Subsets,
    frames_of,
    message,
    message_bytes,
)

Matrix = NDArray[np.float32]
RngAt = Callable[[int], np.random.Generator]  # the generator of the client at a place


class ByParameter(Compression):
    """A message is which rows were touched, then for each parameter the parts that stand for it.

    The weight of a row is the client's own, `num_examples`, so it need not travel.

    Attributes:
        formats: the parts of one parameter in their order: the type of numbers, or `Subsets` for
            a subset of the parameter's entries.
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]]
    num_items: int

    @abstractmethod
    def pack(self, matrix: Matrix, layout: Layout, rng_at: RngAt) -> list[Part]:
        """What stands for one parameter of several clients.

        Args:
            matrix: float32 (num_rows, width), left unchanged.
            layout: which client's rows are which.
            rng_at: a client's generator; it goes on from one parameter to the next.
        """

    @abstractmethod
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Matrix:
        """The matrix that the parts stand for; `arrays` are their values."""

    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, NDArray[np.int64]]:
        """See `Compression.compress`."""
        packed, tensors = self._packed(updates, tables, rng_for), {}
        for name, layout in _layouts(updates, tables).items():
            matrix = self.unpack([part.values for part in packed[name]], layout)
            tensors[name] = matrix.reshape(updates.tensors[name].shape)
        return replace(updates, tensors=tensors), message_bytes(self._parts(updates, packed))

    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """See `Compression.encode`."""
        parts = self._parts(updates, self._packed(updates, tables, rng_for))
        return [message(parts, place) for place in range(len(updates.clients))]

    def decode(
        self, message: bytes, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> tuple[NDArray[np.int64], Tensors]:
        """See `Compression.decode`."""
        frames = frames_of(message)
        rows = Subsets.read(next(frames), self.num_items)
        rests = {name: shape[name in tables :] for name, shape in shapes.items()}
        tensors = {}
        for name, layout in layouts(rests, tables, np.array([0, len(rows)])).items():
            size = int(layout.entries[-1])
            arrays = [_read(next(frames), kind, size) for kind in self.formats]
            leading = len(rows) if name in tables else 1
            tensors[name] = self.unpack(arrays, layout).reshape(leading, *rests[name])
        return rows, tensors

    def _packed(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> dict[str, list[Part]]:
        """The parts of each parameter."""
        codes = updates.clients.tolist()
        rng_at = cache(lambda place: rng_for(codes[place]))
        return {
            name: self.pack(updates.tensors[name].reshape(-1, layout.width), layout, rng_at)
            for name, layout in _layouts(updates, tables).items()
        }

    def _parts(self, updates: Updates, packed: Mapping[str, list[Part]]) -> list[Part]:
        """All parts of the messages in their order."""
        sizes = np.full(len(updates.clients), self.num_items)
        rows = Subsets(updates.rows, updates.offsets, sizes)
        return [rows, *(part for parts in packed.values() for part in parts)]


def _layouts(updates: Updates, tables: frozenset[str]) -> dict[str, Layout]:
    rests = {name: array.shape[1:] for name, array in updates.tensors.items()}
    return layouts(rests, tables, updates.offsets)


def _read(frame: bytes, kind: type[Any], size: int) -> NDArray[Any]:
    return Subsets.read(frame, size) if kind is Subsets else Numbers.read(frame, kind)
