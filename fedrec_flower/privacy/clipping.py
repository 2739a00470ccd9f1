"""Clipping of client updates, which bounds the contribution of one client to a sum.

Source: McMahan et al. 2018, "Learning differentially private recurrent language models", section
2: flat clipping and per-layer clipping.
"""

from collections.abc import Collection
from dataclasses import replace
from math import prod

import numpy as np

from fedrec_flower.core.types import Float32Array, Float64Array, IndexArray
from fedrec_flower.core.updates import Updates

_ROUNDING_MARGIN = 1 - 2.0**-20  # the bound must also hold after float32 products are rounded


def tensor_norms(updates: Updates, tables: Collection[str], order: int = 2) -> Float64Array:
    """The norm of each tensor of each client's update.

    Args:
        updates: the updates.
        tables: names of the parameters with a row per item.
        order: 2 for L2 norms, 1 for L1 norms.

    Returns:
        float64 (num_clients, num_tensors), in the order of the tensors; not finite where the
        update is not finite.
    """
    num_clients = len(updates.clients)
    columns = []
    for name, values in updates.tensors.items():
        owners = updates.owners if name in tables else np.arange(num_clients)
        columns.append(_norms_by_client(values, owners, num_clients, order))
    return np.stack(columns, axis=1) if columns else np.zeros((num_clients, 0))


def total_norms(lengths: Float64Array, order: int = 2) -> Float64Array:
    """The norms of whole updates, from the norms of their tensors: float64 (num_clients,)."""
    return np.asarray(np.linalg.norm(lengths, order, axis=1), np.float64)


def clip_updates(
    updates: Updates,
    tables: Collection[str],
    bound: float,
    *,
    per_tensor: bool,
    order: int = 2,
) -> Updates:
    """Scale every update whose norm exceeds the bound, and give every client the same weight.

    A weight of `num_examples` would have no bound and would reveal how active a client is. An
    update that is not finite becomes zero.

    Args:
        updates: the updates; not changed.
        tables: names of the parameters with a row per item.
        bound: the largest norm of a client's message; infinity clips no update.
        per_tensor: whether each tensor is clipped to an equal share of the bound.
        order: of the norm; see `tensor_norms`.

    Returns:
        Updates of weight 1; no norm exceeds the bound.
    """
    lengths = tensor_norms(updates, tables, order)
    share = 1.0
    if per_tensor:
        share = max(lengths.shape[1], 1) ** (-1 / order)
    else:
        lengths = np.broadcast_to(total_norms(lengths, order)[:, None], lengths.shape)
    not_finite = (~np.isfinite(lengths)).any(axis=1, keepdims=True)
    scales = np.where(not_finite, 0.0, _scales(lengths, bound * share))
    tensors = {}
    for (name, values), scale in zip(updates.tensors.items(), scales.T, strict=True):
        tensors[name] = _scaled(values, scale[updates.owners] if name in tables else scale)
    return replace(updates, weights=np.ones(len(updates.clients)), tensors=tensors)


def _scales(lengths: Float64Array, bound: float) -> Float64Array:
    """The factors that shorten lengths above the bound to the bound; 1 elsewhere."""
    is_longer = lengths > bound
    return np.where(is_longer, bound * _ROUNDING_MARGIN / np.where(is_longer, lengths, 1.0), 1.0)


def _scaled(values: Float32Array, scale: Float64Array) -> Float32Array:
    if (scale == 1).all():
        return values
    scaled = np.empty_like(values)
    with np.errstate(invalid="ignore"):  # zero times infinity
        # In float64: the scale of a very long update may underflow in float32.
        factor = scale.reshape(-1, *[1] * (values.ndim - 1))
        np.multiply(values, factor, out=scaled, dtype=np.float64, casting="same_kind")
    scaled[scale == 0] = 0.0
    return scaled


def _norms_by_client(
    values: Float32Array, owners: IndexArray, num_clients: int, order: int
) -> Float64Array:
    """The norm of each client's rows: float64 (num_clients,)."""
    flat = values.reshape(len(values), prod(values.shape[1:]))
    # float64: the square of a large float32 overflows in float32.
    if order == 1:
        sums = np.abs(flat).sum(axis=1, dtype=np.float64)
        return np.bincount(owners, sums, num_clients).astype(np.float64)
    squares = np.einsum("ij,ij->i", flat, flat, dtype=np.float64)
    return np.sqrt(np.bincount(owners, squares, num_clients))
