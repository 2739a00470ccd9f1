"""Scatter-add and gather-subtract of table rows, the most frequent operation of the package.

Compiled at first use: NumPy and PyTorch make one call per row where rows may repeat.
"""

from functools import cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled

Floats = NDArray[np.float32] | NDArray[np.float64]


def scatter_add_rows(
    table: Floats, rows: NDArray[np.int64], values: Floats, scale: float | Floats = 1.0
) -> None:
    """Add scaled values to rows of a table, in place and in order.

    Args:
        table: (num_rows, ...), contiguous.
        rows: int64 (n,), rows of the table; may repeat.
        values: (n, ...).
        scale: one for all, or (n,), one for each of `rows`.
    """
    scales = np.asarray(scale, table.dtype)
    _compiled()["add"](_flat(table), rows, _flat(values), np.broadcast_to(scales, len(rows)))


def gather_subtract_rows(values: Floats, table: Floats, rows: NDArray[np.int64]) -> None:
    """Subtract rows of a table from values, (n, ...), in place; `rows` is int64 (n,)."""
    _compiled()["subtract"](_flat(values), _flat(table), rows)


def _flat(array: Floats) -> Floats:
    """Return a view with two axes: rows, and the flattened values of a row."""
    return array.reshape(len(array), prod(array.shape[1:]))


def _add(table: Any, rows: Any, values: Any, scales: Any) -> None:
    for place in range(len(rows)):
        row, scale = rows[place], scales[place]
        for column in range(table.shape[1]):
            table[row, column] += scale * values[place, column]


def _subtract(values: Any, table: Any, rows: Any) -> None:
    for place in range(len(rows)):
        row = rows[place]
        for column in range(table.shape[1]):
            values[place, column] -= table[row, column]


@cache
def _compiled() -> dict[str, Any]:
    # At first use: importing the compiler takes a second.
    return {"add": compiled(_add), "subtract": compiled(_subtract)}
