"""Bounding what one client can add to a sum, whatever it sends.

Source: McMahan et al. 2018, "Learning differentially private recurrent language models", section
2: flat clipping and per-layer clipping.
"""

from collections.abc import Collection
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Updates

Floats = NDArray[np.float64]

_ROUNDING = 1 - 2.0**-20  # float32 products round; the bound must hold all the same


def norms(updates: Updates, tables: Collection[str], order: int = 2) -> Floats:
    """The length of each tensor of each client's update.

    Args:
        updates: the updates.
        tables: names of the parameters with a row per item.
        order: 2 for Euclidean lengths, 1 for sums of magnitudes.

    Returns:
        float64 (num_clients, num_tensors), in the order of the tensors; not finite where the
        update is not.
    """
    count = len(updates.clients)
    columns = [
        _length(value, updates.owners if name in tables else np.arange(count), count, order)
        for name, value in updates.tensors.items()
    ]
    return np.stack(columns, axis=1) if columns else np.zeros((count, 0))


def whole_norms(lengths: Floats, order: int = 2) -> Floats:
    """float64 (num_clients,): the lengths of whole updates, from those of their tensors."""
    return np.asarray(np.linalg.norm(lengths, order, axis=1), np.float64)


def clipped(
    updates: Updates,
    tables: Collection[str],
    bound: float,
    *,
    per_tensor: bool,
    order: int = 2,
) -> Updates:
    """Shrink every update that is longer than the bound, and give every client the same weight.

    A weight of `num_examples` would be influence without bound, and would tell how active a
    client is. An update that is not finite becomes zero: nothing of it can be kept.

    Args:
        updates: the updates; left unchanged.
        tables: names of the parameters with a row per item.
        bound: of the length of all that a client sends; infinity shrinks nothing.
        per_tensor: whether each tensor has an equal share of the bound to itself.
        order: of the length; see `norms`.

    Returns:
        Updates of weight 1, each no longer than the bound.
    """
    lengths = norms(updates, tables, order)
    share = 1.0
    if per_tensor:
        share = max(lengths.shape[1], 1) ** (-1 / order)
    else:
        lengths = np.broadcast_to(whole_norms(lengths, order)[:, None], lengths.shape)
    unsound = ~np.isfinite(lengths)
    scales = np.where(unsound.any(axis=1, keepdims=True), 0.0, _scales(lengths, bound * share))
    tensors = {
        name: _scaled(value, scale[updates.owners] if name in tables else scale)
        for (name, value), scale in zip(updates.tensors.items(), scales.T, strict=True)
    }
    return replace(updates, weights=np.ones(len(updates.clients)), tensors=tensors)


def _scales(lengths: Floats, bound: float) -> Floats:
    longer = lengths > bound
    return np.where(longer, bound * _ROUNDING / np.where(longer, lengths, 1.0), 1.0)


def _scaled(values: NDArray[np.float32], scale: Floats) -> NDArray[np.float32]:
    if (scale == 1).all():
        return values
    scaled = np.empty_like(values)
    with np.errstate(invalid="ignore"):  # zero times infinity
        # In float64: the scale of a very long update is hardly a float32.
        factor = scale.reshape(-1, *[1] * (values.ndim - 1))
        np.multiply(values, factor, out=scaled, dtype=np.float64, casting="same_kind")
    scaled[scale == 0] = 0.0
    return scaled


def _length(
    values: NDArray[np.float32], owner: NDArray[np.int64], count: int, order: int
) -> Floats:
    flat = values.reshape(len(values), prod(values.shape[1:]))
    # float64: the square of a large float32 is no float32.
    if order == 1:
        sums = np.abs(flat).sum(axis=1, dtype=np.float64)
        return np.bincount(owner, sums, count).astype(np.float64)
    squares = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    return np.sqrt(np.bincount(owner, squares, count))
