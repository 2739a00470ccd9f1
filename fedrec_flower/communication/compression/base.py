"""What a compression is: a step between a client's update and what the server reads of it.

The plain message: nothing is lost, nothing is clever.

What most compressions share: touched rows alone travel, and each parameter goes by itself.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.communication.compression.encoding import (
    Layout,
    Numbers,
    Part,
    Subsets,
    frames_of,
    in_numpy_format,
    layouts,
    message,
    message_bytes,
)
from fedrec_flower.communication.packing import Cost, pack
from fedrec_flower.core.updates import ROW_WEIGHT, Updates

Tensors = dict[str, NDArray[np.float32]]
RngFor = Callable[[int], np.random.Generator]  # a fresh generator for a client code


class Compression(ABC):
    """Makes each client's message smaller, each by itself: hosting changes nothing.

    `compress` is what a simulation needs, many clients at once. `encode` and `decode` are the
    same thing over a wire: the bytes are counted right and the values are the same to the bit.
    """

    @property
    def remembers(self) -> bool:
        """Whether clients keep what a message lost and add it to their next update."""
        return False

    @abstractmethod
    def compress(
        self, updates: Updates, tables: frozenset[str], rng_for: RngFor
    ) -> tuple[Updates, NDArray[np.int64]]:
        """What the server decodes, and what that costs.

        Args:
            updates: of several clients; left unchanged.
            tables: names of the parameters with a row per item.
            rng_for: gives a client's generator, the same one every time it is asked.

        Returns:
            The updates as decoded: same clients, weights and rows. And int64 (num_clients,), the
            bytes of each client's message.
        """

    @abstractmethod
    def encode(self, updates: Updates, tables: frozenset[str], rng_for: RngFor) -> list[bytes]:
        """Each client's message; arguments as in `compress`."""

    @abstractmethod
    def decode(
        self, message: bytes, shapes: Mapping[str, tuple[int, ...]], tables: frozenset[str]
    ) -> tuple[NDArray[np.int64], Tensors]:
        """Read one client's message.

        Args:
            message: from `encode`.
            shapes: of the global parameters, by name, in the order of the updates' tensors.
            tables: names of the parameters with a row per item.

        Returns:
            `Updates.rows` and `Updates.tensors` of this client alone.
        """


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
