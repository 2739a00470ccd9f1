"""An update on its way: tables lose the rows that nobody touched, where that saves bytes.

A client touches a small part of a catalogue, so most rows of its update are zero. It sends the
codes of the other rows and their values, or the whole tables if these are fewer bytes. The sum at
the other end is the same to the bit.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import ROW_WEIGHT

Arrays = dict[str, NDArray[Any]]
Sums = dict[str, NDArray[np.float64]]

ROWS = "rows"  # among packed arrays: int32 codes of the rows that are sent, ascending

_HEADER = 128  # bytes that numpy's file format puts before the values of each array


@dataclass(frozen=True, slots=True)
class Cost:
    """What it costs to send an update, headers included.

    Attributes:
        fixed: bytes of what has no row per item, and of all headers.
        row: bytes of one row of all tables together.
        num_rows: rows of a table.
    """

    fixed: int
    row: int
    num_rows: int

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]], tables: Collection[str]) -> Self:
        """The cost of arrays like these; `tables` names those with a row per item."""
        rows = [array for name, array in arrays.items() if name in tables]
        rest = [array for name, array in arrays.items() if name not in tables]
        fixed = len(arrays) * _HEADER + sum(array.nbytes for array in rest)
        num_rows = len(rows[0]) if rows else 0
        return cls(fixed, sum(table.nbytes for table in rows) // max(num_rows, 1), num_rows)

    @property
    def whole(self) -> int:
        """Bytes with whole tables."""
        return self.fixed + self.num_rows * self.row

    def touched(self, num_touched: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes with touched rows alone, for int64 (n,) numbers of them: int64 (n,)."""
        code = np.dtype(np.int32).itemsize
        return self.fixed + _HEADER + num_touched * (self.row + code)

    def least(self, num_touched: NDArray[np.int64]) -> NDArray[np.int64]:
        """Bytes of the smaller of the two: int64 (n,)."""
        return np.minimum(self.touched(num_touched), self.whole)


def pack(arrays: Arrays, tables: Collection[str]) -> tuple[Arrays, dict[str, int]]:
    """Leave out the rows that nobody touched, if that saves bytes.

    Args:
        arrays: an update or a sum of updates. Where `ROW_WEIGHT` is among it and not empty, a
            row without weight is zero in every table; otherwise nothing is left out.
        tables: names of the arrays with a row per item, `ROW_WEIGHT` among them.

    Returns:
        The arrays to send, `ROWS` among them if rows are left out; and how many rows each array
        that lost some had.
    """
    weights = arrays.get(ROW_WEIGHT, np.zeros(0))
    rows, cost = np.flatnonzero(weights), Cost.of(arrays, tables)
    if not len(weights) or cost.touched(np.array(len(rows))) >= cost.whole:
        return arrays, {}
    packed = {name: array[rows] if name in tables else array for name, array in arrays.items()}
    return packed | {ROWS: rows.astype(np.int32)}, {name: len(arrays[name]) for name in tables}


def add_packed(total: Sums, arrays: Arrays, num_rows: Mapping[str, int]) -> None:
    """Add what `pack` gave to a sum, in place; an empty sum takes its shapes from the arrays.

    Args:
        total: float64, by name, whole tables.
        arrays: the arrays that were sent.
        num_rows: how many rows each array that lost some had.
    """
    for name, array in arrays.items():
        if name == ROWS:
            continue
        lost = name in num_rows
        shape = (num_rows[name], *array.shape[1:]) if lost else array.shape
        # float64: thousands of float32 clients lose low bits.
        whole = total.setdefault(name, np.zeros(shape))
        whole[arrays[ROWS] if lost else ...] += array
