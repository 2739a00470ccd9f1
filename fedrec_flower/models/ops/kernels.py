"""Compiled arithmetic of models that read histories; see `pairs` and `rebuilding`."""

from functools import partial
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, IndexArray

if TYPE_CHECKING:
    from fedrec_flower.models.ops.reconstruction import ReconstructionConfig


_TINY = np.float32(1e-20)  # in place of nothing, where the loss has no slope

# The order of a sum is free, so that the compiler may use wide registers.
_compiled = partial(compiled, fastmath={"reassoc", "contract", "nsz"})


@_compiled
def gather_dot(
    left: Float32Array,
    left_rows: IndexArray,
    right: Float32Array,
    right_rows: IndexArray,
    products: Float32Array,
) -> None:
    """Fill `products`, (n,), with those of pairs of rows."""
    for pair in range(len(products)):
        here, there = left_rows[pair], right_rows[pair]
        if not (0 <= here < len(left) and 0 <= there < len(right)):
            raise IndexError("a row outside its table")
        products[pair] = _dot(left[here], right[there])


@_compiled
def weighted_scatter_sum(
    table: Float32Array,
    rows: IndexArray,
    weight: Float32Array,
    into: IndexArray,
    summed: Float32Array,
) -> None:
    """Add weighted rows of a table to rows of `summed`; those without weight are not read."""
    for pair in range(len(rows)):
        here, there = rows[pair], into[pair]
        if not (0 <= here < len(table) and 0 <= there < len(summed)):
            raise IndexError("a row outside its table")
        if weight[pair] != 0:  # neither padding nor what was dropped
            _add(summed[there], weight[pair], table[here])


@_compiled
def reconstruct_users(
    item: Float32Array,
    bias: Float32Array,
    user: IndexArray,
    row: IndexArray,
    target: Float32Array,
    weight: Float32Array,
    how: "ReconstructionConfig",
    users: Float32Array,
) -> None:
    """Fit `users`, zero at first, to their entries; see `reconstruction.reconstruct_users`."""
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
    item: Float32Array,
    bias: Float32Array,
    rows: IndexArray,
    target: Float32Array,
    weight: Float32Array,
    how: "ReconstructionConfig",
    vector: Float32Array,
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
def _dot(one: Float32Array, other: Float32Array) -> np.float32:
    product = np.float32(0)
    for column in range(len(one)):
        product += one[column] * other[column]
    return product


@_compiled
def _add(total: Float32Array, share: np.float32, row: Float32Array) -> None:
    for column in range(len(row)):
        total[column] += share * row[column]
