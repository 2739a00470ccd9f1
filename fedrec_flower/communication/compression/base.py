"""Base classes of compressions of client updates, and the identity `NoCompression`."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.communication.compression.encoding import (
    Layout,
    Numbers,
    Part,
    Subsets,
    build_message,
    in_numpy_format,
    layouts,
    message_bytes,
    read_frames,
)
from fedrec_flower.communication.packing import Cost, pack
from fedrec_flower.core.types import Float32Array, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import ROW_WEIGHT, Updates

RngFor = Callable[[int], np.random.Generator]  # a fresh generator for a client code


class Compression(ABC):
    """Compresses each client's message independently of the other clients on its node.

    A simulation calls `compress`, which handles many clients at once. `encode` and `decode` produce
    and read the actual bytes. Both ways agree in the number of bytes, and in the values to the bit.
    """

    @property
    def is_identity(self) -> bool:
        """Whether the server decodes exactly the updates."""
        return False

    @property
    def uses_error_feedback(self) -> bool:
        """Whether clients store the compression error and add it to their next update."""
        return False

    @abstractmethod
    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, IndexArray]:
        """Compress and decompress updates, and measure the messages.

        Args:
            updates: updates of several clients; not modified.
            tables: names of the parameters with a row per item.
            rng_for: returns a client's generator, in the same state at every call.

        Returns:
            The updates as the server decodes them (same clients, weights and rows), and int64
            (num_clients,), the bytes of each client's message.
        """

    @abstractmethod
    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """Return each client's message. The arguments are those of `compress`."""

    @abstractmethod
    def decode(
        self, message: bytes, shapes: Shapes, tables: frozenset[str]
    ) -> tuple[IndexArray, Tensors]:
        """Read one client's message.

        Args:
            message: a message from `encode`.
            shapes: shapes of the global parameters by name, in the order of the updates' tensors.
            tables: names of the parameters with a row per item.

        Returns:
            `Updates.rows` and `Updates.tensors` of this client.
        """


@dataclass(frozen=True, slots=True)
class NoCompression(Compression):
    """The message of a client that is alone on its node: `pack` applied to its update.

    It holds whole tables as in textbook FedAvg, or the touched rows if these need fewer bytes, and
    the weight of each row.

    Attributes:
        num_items: rows of a whole table.
    """

    num_items: int

    @property
    @override
    def is_identity(self) -> bool:
        return True

    @override
    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, IndexArray]:
        del rng_for
        shapes = self._whole_shapes(updates, tables)
        cost = Cost.from_shapes(shapes, tables, self.num_items)
        return updates, cost.least(np.diff(updates.offsets))

    @override
    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """Return the packed arrays of each client, in NumPy's file format, one after another."""
        del rng_for
        places = range(len(updates.clients))
        clients = [updates.select(np.array([place]), tables) for place in places]
        return [self._message(client, tables) for client in clients]

    @override
    def decode(
        self, message: bytes, shapes: Shapes, tables: frozenset[str]
    ) -> tuple[IndexArray, Tensors]:
        file = BytesIO(message)
        tensors = {name: np.load(file) for name in shapes}
        row_weights = np.load(file)
        if file.tell() < len(message):  # only the touched rows were sent; their codes follow
            rows = np.load(file).astype(np.int64)
            return rows, {n: a if n in tables else a[None] for n, a in tensors.items()}
        rows = np.flatnonzero(row_weights)
        return rows, {n: a[rows] if n in tables else a[None] for n, a in tensors.items()}

    def _message(self, client: Updates, tables: frozenset[str]) -> bytes:
        whole = {}
        for name, shape in self._whole_shapes(client, tables).items():
            whole[name] = np.zeros(shape, np.float32)
            whole[name][client.rows if name in tables else ...] = client.tensors[name]
        row_weights = np.zeros(self.num_items)
        row_weights[client.rows] = client.weights[0]
        arrays, _ = pack({**whole, ROW_WEIGHT: row_weights}, [*tables, ROW_WEIGHT])
        return b"".join(in_numpy_format(array) for array in arrays.values())

    def _whole_shapes(self, updates: Updates, tables: frozenset[str]) -> dict[str, tuple[int, ...]]:
        """Shapes of the whole parameters of one client, by name."""
        return {
            name: (self.num_items, *array.shape[1:]) if name in tables else array.shape[1:]
            for name, array in updates.tensors.items()
        }


RngAt = Callable[[int], np.random.Generator]  # the generator of the client at a position


class ByParameter(Compression):
    """A message holds the codes of the touched rows, then the parts that encode each parameter.

    The weight of a row is the client's `num_examples`, so the message has no row weights.

    Attributes:
        formats: the parts of one parameter in their order: a NumPy type for `Numbers` of this
            type, or `Subsets` for a subset of the parameter's entries.
        num_items: rows of a whole table.
    """

    formats: ClassVar[tuple[type[Any], ...]]
    num_items: int

    @abstractmethod
    def pack(self, matrix: Float32Array, layout: Layout, rng_at: RngAt) -> list[Part]:
        """Encode one parameter of several clients.

        Args:
            matrix: float32 (num_rows, width), not modified.
            layout: the rows of each client.
            rng_at: returns a client's generator; its state advances from parameter to parameter.

        Returns:
            One part per entry of `formats`.
        """

    @abstractmethod
    def unpack(self, arrays: Sequence[NDArray[Any]], layout: Layout) -> Float32Array:
        """Decode one parameter from the values of its parts: float32 (num_rows, width)."""

    @override
    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, IndexArray]:
        packed = self._pack_all(updates, tables, rng_for)
        tensors = {}
        for name, layout in _update_layouts(updates, tables).items():
            values = [part.values for part in packed[name]]
            tensors[name] = self.unpack(values, layout).reshape(updates.tensors[name].shape)
        return replace(updates, tensors=tensors), message_bytes(
            self._message_parts(updates, packed)
        )

    @override
    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        parts = self._message_parts(updates, self._pack_all(updates, tables, rng_for))
        return [build_message(parts, place) for place in range(len(updates.clients))]

    @override
    def decode(
        self, message: bytes, shapes: Shapes, tables: frozenset[str]
    ) -> tuple[IndexArray, Tensors]:
        frames = read_frames(message)
        rows = Subsets.read(next(frames), self.num_items)
        # Without the item axis of a table.
        row_shapes = {
            name: shape[1:] if name in tables else shape for name, shape in shapes.items()
        }
        tensors = {}
        for name, layout in layouts(row_shapes, tables, np.array([0, len(rows)])).items():
            num_entries = int(layout.entries[-1])
            arrays = [_read_part(next(frames), kind, num_entries) for kind in self.formats]
            num_rows = len(rows) if name in tables else 1
            tensors[name] = self.unpack(arrays, layout).reshape(num_rows, *row_shapes[name])
        return rows, tensors

    def _pack_all(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> dict[str, list[Part]]:
        """Encode every parameter: its parts by name."""
        codes = updates.clients.tolist()
        rng_at = cache(lambda place: rng_for(codes[place]))
        return {
            name: self.pack(updates.tensors[name].reshape(-1, layout.width), layout, rng_at)
            for name, layout in _update_layouts(updates, tables).items()
        }

    def _message_parts(self, updates: Updates, packed: Mapping[str, list[Part]]) -> list[Part]:
        """All parts of the messages in their order: the touched rows, then the parameters."""
        catalogue_sizes = np.full(len(updates.clients), self.num_items)
        rows = Subsets(updates.rows, updates.offsets, catalogue_sizes)
        return [rows, *(part for parts in packed.values() for part in parts)]


def _update_layouts(updates: Updates, tables: frozenset[str]) -> dict[str, Layout]:
    row_shapes = {name: array.shape[1:] for name, array in updates.tensors.items()}
    return layouts(row_shapes, tables, updates.offsets)


def _read_part(frame: bytes, kind: type[Any], size: int) -> NDArray[Any]:
    if kind is Subsets:
        return Subsets.read(frame, size)
    return Numbers.read(frame, kind)
