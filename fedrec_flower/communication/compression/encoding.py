"""What messages are made of: numbers, and subsets of what both sides can count.

A message is one flat array of bytes in numpy's file format, as Flower carries any array. In it
stand the parts one after another, each with its length before it. Numbers are little-endian.

How one parameter of several clients lies in memory: a matrix a client, one below the other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray

Index = NDArray[np.int64]

_LENGTH = 4  # bytes that say how long a part is
_FEW = 2**16  # elements that two bytes can count


@dataclass(frozen=True, slots=True)
class Numbers:
    """Some numbers of each client.

    Attributes:
        values: (n,), one client's after another's.
        offsets: int64 (num_clients + 1,), where each client's begin.
    """

    values: NDArray[Any]
    offsets: Index

    @property
    def num_bytes(self) -> Index:
        """int64 (num_clients,)."""
        num_bytes: Index = np.diff(self.offsets) * self.values.itemsize
        return num_bytes

    def frame(self, place: int) -> bytes:
        """One client's bytes."""
        return self.values[self.offsets[place] : self.offsets[place + 1]].tobytes()

    @staticmethod
    def read(frame: bytes, dtype: DTypeLike) -> NDArray[Any]:
        """One client's numbers from its bytes."""
        return np.frombuffer(frame, dtype)


@dataclass(frozen=True, slots=True)
class Subsets:
    """Some elements out of those that each client has, counted from zero.

    On the wire a bit for each element there is, or two or four bytes for each that is among them,
    whatever is less; its length says which.

    Attributes:
        values: int64 (n,), elements, ascending within a client.
        offsets: int64 (num_clients + 1,), where each client's begin.
        sizes: int64 (num_clients,), how many each has in all.
    """

    values: Index
    offsets: Index
    sizes: Index

    @property
    def num_bytes(self) -> Index:
        """int64 (num_clients,)."""
        code = np.where(self.sizes <= _FEW, 2, 4)
        least: Index = np.minimum(np.diff(self.offsets) * code, -(-self.sizes // 8))
        return least

    def frame(self, place: int) -> bytes:
        """One client's bytes."""
        members, size = self.values[slice(*self.offsets[place : place + 2])], self.sizes[place]
        codes = members.astype(_code(int(size))).tobytes()
        if len(codes) < -(-size // 8):
            return codes
        among = np.zeros(size, np.bool_)
        among[members] = True
        return np.packbits(among).tobytes()

    @staticmethod
    def read(frame: bytes, size: int) -> Index:
        """One client's elements from its bytes; `size` is how many it has in all."""
        if len(frame) < -(-size // 8):
            return np.frombuffer(frame, _code(size)).astype(np.int64)
        return np.flatnonzero(np.unpackbits(np.frombuffer(frame, np.uint8), count=size))


Part = Numbers | Subsets


def _code(size: int) -> type[np.unsignedinteger[Any]]:
    """The narrowest type that counts so many elements."""
    return np.uint16 if size <= _FEW else np.uint32


def in_numpy_format(array: NDArray[Any]) -> bytes:
    """An array as numpy's file format, and Flower, have it."""
    file = BytesIO()
    np.save(file, array, allow_pickle=False)
    return file.getvalue()


_EMPTY = len(in_numpy_format(np.zeros(0, np.uint8)))


def message_bytes(parts: Sequence[Part]) -> Index:
    """Bytes of each client's message of these parts: int64 (num_clients,)."""
    frames = np.stack([part.num_bytes for part in parts])
    total: Index = _EMPTY + len(parts) * _LENGTH + frames.sum(axis=0)
    return total


def message(parts: Sequence[Part], place: int) -> bytes:
    """One client's message of these parts."""
    frames = [part.frame(place) for part in parts]
    framed = b"".join(len(frame).to_bytes(_LENGTH, "little") + frame for frame in frames)
    return in_numpy_format(np.frombuffer(framed, np.uint8))


def frames_of(message: bytes) -> Iterator[bytes]:
    """The bytes of each part of a message, in their order."""
    framed, place = np.load(BytesIO(message)).tobytes(), 0
    while place < len(framed):
        first = place + _LENGTH
        place = first + int.from_bytes(framed[place:first], "little")
        yield framed[first:place]


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each client's matrix lies.

    Attributes:
        offsets: int64 (num_clients + 1,), where each client's rows begin.
        width: entries of a row.
    """

    offsets: NDArray[np.int64]
    width: int

    @classmethod
    def of_table(cls, row: tuple[int, ...], offsets: NDArray[np.int64]) -> Self:
        """A parameter with a row per item; `row` is the shape of one, `offsets` the updates'."""
        return cls(offsets, prod(row))

    @classmethod
    def of_dense(cls, shape: tuple[int, ...], num_clients: int) -> Self:
        """Any other parameter; one without two axes is a single row."""
        num_rows = shape[0] if len(shape) > 1 else 1
        return cls(np.arange(num_clients + 1) * num_rows, prod(shape) // max(num_rows, 1))

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.offsets) - 1

    @property
    def num_rows(self) -> NDArray[np.int64]:
        """int64 (num_clients,), rows of each client."""
        return np.diff(self.offsets)

    @property
    def entries(self) -> NDArray[np.int64]:
        """int64 (num_clients + 1,), where each client's entries begin."""
        return self.offsets * self.width


def layouts(
    rests: Mapping[str, tuple[int, ...]], tables: frozenset[str], offsets: NDArray[np.int64]
) -> dict[str, Layout]:
    """The layout of each parameter.

    Args:
        rests: by name, the shape of a row of a table, and the whole shape of anything else.
        tables: names of the parameters with a row per item.
        offsets: int64 (num_clients + 1,), `Updates.offsets`.
    """
    return {
        name: Layout.of_table(rest, offsets)
        if name in tables
        else Layout.of_dense(rest, len(offsets) - 1)
        for name, rest in rests.items()
    }
