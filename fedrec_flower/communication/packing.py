"""Packing of updates: tables are sent without their untouched rows where that saves bytes.

A client touches a small part of a catalogue, so most rows of its update are zero. It sends the
codes and values of the other rows, or the whole tables if these need fewer bytes. The sum on the
server is the same to the bit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import Arrays, IndexArray, Shapes, Sums
from fedrec_flower.core.updates import ROW_WEIGHT

ROWS = "rows"  # name of a packed array: int32 codes of the rows that are sent, ascending

_HEADER_BYTES = 128  # bytes before the values of each array in NumPy's file format
_CODE_BYTES = np.dtype(np.int32).itemsize
_VALUE_BYTES = np.dtype(np.float32).itemsize
_ROW_WEIGHT_BYTES = np.dtype(np.float64).itemsize


@dataclass(frozen=True, slots=True)
class Cost:
    """Size of a message with an update, headers included.

    Attributes:
        fixed: bytes of the arrays without a row per item, and of all headers.
        row: bytes of one row of all tables together.
        num_rows: rows of a table.
    """

    fixed: int
    row: int
    num_rows: int

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], tables: Collection[str]) -> Self:
        """Return the cost of sending arrays.

        Args:
            arrays: the arrays by name.
            tables: names of those with a row per item.
        """
        table_arrays = [array for name, array in arrays.items() if name in tables]
        other_arrays = [array for name, array in arrays.items() if name not in tables]
        fixed = len(arrays) * _HEADER_BYTES + sum(array.nbytes for array in other_arrays)
        num_rows = len(table_arrays[0]) if table_arrays else 0
        table_bytes = sum(array.nbytes for array in table_arrays)
        return cls(fixed, table_bytes // max(num_rows, 1), num_rows)

    @classmethod
    def from_shapes(cls, shapes: Shapes, tables: Collection[str], num_items: int) -> Self:
        """Return the cost of sending float32 tensors and the float64 weight of each row.

        Args:
            shapes: full shapes of the tensors by name.
            tables: names of those with a row per item.
            num_items: rows of a table.
        """
        fixed = (len(shapes) + 1) * _HEADER_BYTES
        row = _ROW_WEIGHT_BYTES
        for name, shape in shapes.items():
            if name in tables:
                row += _VALUE_BYTES * prod(shape[1:])
            else:
                fixed += _VALUE_BYTES * prod(shape)
        return cls(fixed, row, num_items)

    @property
    def whole(self) -> int:
        """Bytes with whole tables."""
        return self.fixed + self.num_rows * self.row

    def touched(self, num_touched: IndexArray) -> IndexArray:
        """Return the bytes with touched rows only, int64 (n,).

        Args:
            num_touched: int64 (n,), numbers of touched rows.
        """
        return self.fixed + _HEADER_BYTES + num_touched * (self.row + _CODE_BYTES)

    def least(self, num_touched: IndexArray) -> IndexArray:
        """Return the bytes of the smaller of the two forms, int64 (n,)."""
        return np.minimum(self.touched(num_touched), self.whole)


def pack(arrays: Arrays, tables: Collection[str]) -> tuple[Arrays, dict[str, int]]:
    """Remove the untouched rows of tables if that saves bytes.

    Args:
        arrays: an update or a sum of updates. If it has `ROW_WEIGHT` and this is not empty, a row
            without weight must be zero in every table; otherwise no row is removed.
        tables: names of the arrays with a row per item, `ROW_WEIGHT` among them.

    Returns:
        The arrays to send, with `ROWS` if rows were removed; and the original number of rows of
        each array whose rows were removed.
    """
    weights = arrays.get(ROW_WEIGHT, np.zeros(0))
    rows = np.flatnonzero(weights)
    cost = Cost.of(arrays, tables)
    if not len(weights) or cost.touched(np.array(len(rows))) >= cost.whole:
        return arrays, {}
    packed = {name: array[rows] if name in tables else array for name, array in arrays.items()}
    return packed | {ROWS: rows.astype(np.int32)}, {name: len(arrays[name]) for name in tables}


def add_packed(total: Sums, arrays: Arrays, num_rows: Mapping[str, int]) -> None:
    """Add packed arrays to a sum, in place; an empty sum takes its shapes from the arrays.

    Args:
        total: float64 arrays by name, whole tables.
        arrays: arrays from `pack`.
        num_rows: numbers of rows from `pack`.
    """
    for name, array in arrays.items():
        if name == ROWS:
            continue
        is_packed = name in num_rows
        shape = (num_rows[name], *array.shape[1:]) if is_packed else array.shape
        # float64: thousands of float32 clients lose low bits.
        whole = total.setdefault(name, np.zeros(shape))
        whole[arrays[ROWS] if is_packed else ...] += array
