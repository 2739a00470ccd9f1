"""Encoding of compressed messages: parts of a message and the memory layout of parameters.

A message is one flat array of bytes in NumPy's file format, as Flower transports any array. It
holds the parts one after another, each after its length. Numbers are little-endian.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

from fedrec_flower.core.types import IndexArray, Shapes


@dataclass(frozen=True, slots=True)
class Layout:
    """Position of each client's matrix.

    Attributes:
        offsets: int64 (num_clients + 1,), first row of each client.
        width: entries per row.
    """

    offsets: IndexArray
    width: int

    @classmethod
    def of_table(cls, row: tuple[int, ...], offsets: IndexArray) -> Self:
        """Layout of a parameter with a row per item.

        Args:
            row: shape of one row.
            offsets: int64 (num_clients + 1,), `Updates.offsets`.
        """
        return cls(offsets, prod(row))

    @classmethod
    def of_dense(cls, shape: tuple[int, ...], num_clients: int) -> Self:
        """Layout of any other parameter; one with fewer than two axes is a single row."""
        num_rows = shape[0] if len(shape) > 1 else 1
        return cls(np.arange(num_clients + 1) * num_rows, prod(shape) // max(num_rows, 1))

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def num_rows(self) -> IndexArray:
        """Rows of each client, int64 (num_clients,)."""
        return np.diff(self.offsets)

    @property
    def entries(self) -> IndexArray:
        """First entry of each client, int64 (num_clients + 1,)."""
        return self.offsets * self.width


def layouts(row_shapes: Shapes, tables: frozenset[str], offsets: IndexArray) -> dict[str, Layout]:
    """Return the layout of each parameter.

    Args:
        row_shapes: by name, the shape of one row of a table, or the whole shape of any other
            parameter.
        tables: names of the parameters with a row per item.
        offsets: int64 (num_clients + 1,), `Updates.offsets`.
    """
    return {
        name: Layout.of_table(shape, offsets)
        if name in tables
        else Layout.of_dense(shape, len(offsets) - 1)
        for name, shape in row_shapes.items()
    }


_LENGTH_BYTES = 4  # of the length field before each part
_MAX_UINT16_ELEMENTS = 2**16  # elements that a two-byte code can number


@dataclass(frozen=True, slots=True)
class Numbers:
    """Numbers of several clients.

    Attributes:
        values: (n,), the clients' numbers one after another.
        offsets: int64 (num_clients + 1,), first number of each client.
    """

    values: NDArray[Any]
    offsets: IndexArray

    @property
    def num_bytes(self) -> IndexArray:
        """Bytes of each client's part, int64 (num_clients,)."""
        num_bytes: IndexArray = np.diff(self.offsets) * self.values.itemsize
        return num_bytes

    def frame(self, place: int) -> bytes:
        """Return one client's bytes."""
        return self.values[self.offsets[place] : self.offsets[place + 1]].tobytes()

    @staticmethod
    def read(frame: bytes, dtype: DTypeLike) -> NDArray[Any]:
        """Read one client's numbers from its bytes."""
        return np.frombuffer(frame, dtype)


@dataclass(frozen=True, slots=True)
class Subsets:
    """For each client, a subset of the elements 0, ..., size - 1.

    It is encoded as a bitmap (one bit per element of the whole set) or as a list of codes (two or
    four bytes per element of the subset), the shorter of the two. The length of the part
    identifies the encoding.

    Attributes:
        values: int64 (n,), elements, ascending within a client.
        offsets: int64 (num_clients + 1,), first element of each client.
        sizes: int64 (num_clients,), size of each client's whole set.
    """

    values: IndexArray
    offsets: IndexArray
    sizes: IndexArray

    @property
    def num_bytes(self) -> IndexArray:
        """Bytes of each client's part, int64 (num_clients,)."""
        code_bytes = np.where(self.sizes <= _MAX_UINT16_ELEMENTS, 2, 4)
        bitmap_bytes = -(-self.sizes // 8)
        num_bytes: IndexArray = np.minimum(np.diff(self.offsets) * code_bytes, bitmap_bytes)
        return num_bytes

    def frame(self, place: int) -> bytes:
        """Return one client's bytes."""
        members = self.values[slice(*self.offsets[place : place + 2])]
        size = self.sizes[place]
        codes = members.astype(_code_type(int(size))).tobytes()
        if len(codes) < -(-size // 8):
            return codes
        bitmap = np.zeros(size, np.bool_)
        bitmap[members] = True
        return np.packbits(bitmap).tobytes()

    @staticmethod
    def read(frame: bytes, size: int) -> IndexArray:
        """Read one client's elements from its bytes; `size` is the size of its whole set."""
        if len(frame) < -(-size // 8):
            return np.frombuffer(frame, _code_type(size)).astype(np.int64)
        return np.flatnonzero(np.unpackbits(np.frombuffer(frame, np.uint8), count=size))


Part = Numbers | Subsets


def _code_type(size: int) -> type[np.unsignedinteger[Any]]:
    """Return the narrowest integer type that numbers `size` elements."""
    return np.uint16 if size <= _MAX_UINT16_ELEMENTS else np.uint32


def in_numpy_format(array: NDArray[Any]) -> bytes:
    """Return an array in NumPy's file format, which Flower uses for arrays in messages."""
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


_HEADER_BYTES = len(in_numpy_format(np.zeros(0, np.uint8)))


def message_bytes(parts: Sequence[Part]) -> IndexArray:
    """Return the size of each client's message of these parts in bytes, int64 (num_clients,)."""
    frames = np.stack([part.num_bytes for part in parts])
    total: IndexArray = _HEADER_BYTES + len(parts) * _LENGTH_BYTES + frames.sum(axis=0)
    return total


def build_message(parts: Sequence[Part], place: int) -> bytes:
    """Return the message of the client at `place`."""
    frames = [part.frame(place) for part in parts]
    framed = b"".join(len(frame).to_bytes(_LENGTH_BYTES, "little") + frame for frame in frames)
    return in_numpy_format(np.frombuffer(framed, np.uint8))


def read_frames(message: bytes) -> Iterator[bytes]:
    """Yield the bytes of each part of a message, in their order."""
    framed = np.load(BytesIO(message)).tobytes()
    end = 0
    while end < len(framed):
        start = end + _LENGTH_BYTES
        end = start + int.from_bytes(framed[end:start], "little")
        yield framed[start:end]
