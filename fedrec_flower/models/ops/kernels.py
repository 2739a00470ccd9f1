"""Compiled arithmetic of models that read histories; see `pairs` and `rebuilding`."""

from functools import partial
from math import exp
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled

if TYPE_CHECKING:
    from fedrec_flower.models.ops.reconstruction import Descent

Floats = NDArray[np.float32]
Index = NDArray[np.int64]

_TINY = np.float32(1e-20)  # in place of nothing, where the loss has no slope

# The order of a sum is free, so that the compiler may use wide registers.
_compiled = partial(compiled, fastmath={"reassoc", "contract", "nsz"})


@_compiled
def dots(
    left: Floats, left_rows: Index, right: Floats, right_rows: Index, products: Floats
) -> None:
    """Fill `products`, (n,), with those of pairs of rows."""
    for pair in range(len(products)):
        here, there = left_rows[pair], right_rows[pair]
        if not (0 <= here < len(left) and 0 <= there < len(right)):
            raise IndexError("a row outside its table")
        products[pair] = _dot(left[here], right[there])


@_compiled
def sums(table: Floats, rows: Index, weight: Floats, into: Index, summed: Floats) -> None:
    """Add weighted rows of a table to rows of `summed`; those without weight are not read."""
    for pair in range(len(rows)):
        here, there = rows[pair], into[pair]
        if not (0 <= here < len(table) and 0 <= there < len(summed)):
            raise IndexError("a row outside its table")
        if weight[pair] != 0:  # neither padding nor what was dropped
            _add(summed[there], weight[pair], table[here])


@_compiled
def rebuild(
    item: Floats,
    bias: Floats,
    user: Index,
    row: Index,
    target: Floats,
    weight: Floats,
    how: "Descent",
    users: Floats,
) -> None:
    """Move `users`, zero at first, down the loss of their entries; see `rebuilding.rebuild`."""
    read = np.flatnonzero(weight)
    starts = np.flatnonzero(np.diff(user[read])) + 1
    start = 0
    for place in range(len(starts) + (len(read) > 0)):
        stop = starts[place] if place < len(starts) else len(read)
        own = read[start:stop]
        rows, vector = row[own], users[user[own[0]]]
        _descend(item, bias, rows, target[own], weight[own], how, vector)
        start = stop


@_compiled
def _descend(
    item: Floats,
    bias: Floats,
    rows: Index,
    target: Floats,
    weight: Floats,
    how: "Descent",
    vector: Floats,
) -> None:
    """Move one user's vector."""
    score, along, gradient = np.empty_like(target), np.empty_like(target), np.empty_like(vector)
    for entry in range(len(rows)):
        score[entry] = bias[rows[entry], 0]
    for _ in range(how.num_steps):
        gradient[:] = 0
        for entry in range(len(rows)):
            predicted = score[entry] if how.rates else np.float32(1 / (1 + exp(-score[entry])))
            _add(gradient, (predicted - target[entry]) * weight[entry], item[rows[entry]])
        bend = np.float32(0)
        for entry in range(len(rows)):
            along[entry] = _dot(gradient, item[rows[entry]])
            bend += weight[entry] * along[entry] * along[entry]
        bound = bend if how.rates else bend / 4
        step = how.rate * _dot(gradient, gradient) / max(bound, _TINY)
        _add(vector, -step, gradient)
        _add(score, -step, along)


@_compiled
def _dot(one: Floats, other: Floats) -> np.float32:
    product = np.float32(0)
    for column in range(len(one)):
        product += one[column] * other[column]
    return product


@_compiled
def _add(total: Floats, share: np.float32, row: Floats) -> None:
    for column in range(len(row)):
        total[column] += share * row[column]
