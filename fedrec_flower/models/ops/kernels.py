"""Compiled loops of models that read histories; see `row_products` and `reconstruction`."""

from functools import partial
from math import exp
from typing import TYPE_CHECKING

import numpy as np

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.types import Float32Array, IndexArray

if TYPE_CHECKING:
    from fedrec_flower.models.ops.reconstruction import ReconstructionConfig

_TINY = np.float32(1e-20)  # replaces a zero curvature: the gradient is then zero as well

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
    """Fill `products`, (n,), with the dot products of pairs of rows."""
    for pair in range(len(products)):
        left_row, right_row = left_rows[pair], right_rows[pair]
        if not (0 <= left_row < len(left) and 0 <= right_row < len(right)):
            raise IndexError("a row outside its table")
        products[pair] = _dot(left[left_row], right[right_row])


@_compiled
def weighted_scatter_sum(
    table: Float32Array,
    rows: IndexArray,
    weight: Float32Array,
    into: IndexArray,
    summed: Float32Array,
) -> None:
    """Add weighted rows of a table to rows of `summed`; rows of weight 0 are not read."""
    for pair in range(len(rows)):
        source, destination = rows[pair], into[pair]
        if not (0 <= source < len(table) and 0 <= destination < len(summed)):
            raise IndexError("a row outside its table")
        if weight[pair] != 0:  # padding and dropped entries have weight 0
            _add(summed[destination], weight[pair], table[source])


@_compiled
def reconstruct_users(
    item: Float32Array,
    bias: Float32Array,
    user: IndexArray,
    row: IndexArray,
    target: Float32Array,
    weight: Float32Array,
    config: "ReconstructionConfig",
    users: Float32Array,
) -> None:
    """Fit `users`, zero at first, to their entries; see `reconstruction.reconstruct_users`."""
    used = np.flatnonzero(weight)
    starts = np.flatnonzero(np.diff(user[used])) + 1
    start = 0
    for place in range(len(starts) + (len(used) > 0)):
        stop = starts[place] if place < len(starts) else len(used)
        entries = used[start:stop]
        vector = users[user[entries[0]]]
        _descend(item, bias, row[entries], target[entries], weight[entries], config, vector)
        start = stop


@_compiled
def _descend(
    item: Float32Array,
    bias: Float32Array,
    rows: IndexArray,
    target: Float32Array,
    weight: Float32Array,
    config: "ReconstructionConfig",
    vector: Float32Array,
) -> None:
    """Fit one user's vector to the user's entries.

    Args:
        item: (num_items, d), item vectors.
        bias: (num_items, 1), constant part of each item's score.
        rows: (n,), item rows of the entries.
        target: (n,), targets of the entries.
        weight: (n,), weights of the entries.
        config: number and length of steps, and the loss.
        vector: (d,), zero at first; changed in place.
    """
    score = np.empty_like(target)
    projection = np.empty_like(target)  # of each entry's item vector on the gradient
    gradient = np.empty_like(vector)
    for entry in range(len(rows)):
        score[entry] = bias[rows[entry], 0]
    for _ in range(config.num_steps):
        gradient[:] = 0
        for entry in range(len(rows)):
            predicted = (
                score[entry] if config.squared_error else np.float32(1 / (1 + exp(-score[entry])))
            )
            _add(gradient, (predicted - target[entry]) * weight[entry], item[rows[entry]])
        curvature = np.float32(0)
        for entry in range(len(rows)):
            projection[entry] = _dot(gradient, item[rows[entry]])
            curvature += weight[entry] * projection[entry] * projection[entry]
        bound = curvature if config.squared_error else curvature / 4
        step = config.rate * _dot(gradient, gradient) / max(bound, _TINY)
        _add(vector, -step, gradient)
        _add(score, -step, projection)


@_compiled
def _dot(left: Float32Array, right: Float32Array) -> np.float32:
    product = np.float32(0)
    for column in range(len(left)):
        product += left[column] * right[column]
    return product


@_compiled
def _add(total: Float32Array, factor: np.float32, row: Float32Array) -> None:
    for column in range(len(row)):
        total[column] += factor * row[column]
