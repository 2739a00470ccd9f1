"""Dot products and weighted sums of table rows, without a copy of a row per pair.

Scores of pairs and encodings of histories consist of these two operations. Each is the gradient of
the other, as a product with a sparse matrix and the product sampled at its entries are.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def gather_dot(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """Dot products of pairs of rows; differentiable, and one call for all clients under `vmap`.

    Args:
        left: float32 (num_left, d).
        left_rows: int64 (n,), a row of `left` for each pair.
        right: float32 (num_right, d).
        right_rows: int64 (n,), a row of `right` for each pair.

    Returns:
        float32 (n,).
    """
    products: Tensor = _GatherDot.apply(left, left_rows, right, right_rows)  # type: ignore[no-untyped-call]  # PyTorch has none
    return products


def weighted_scatter_sum(
    table: Tensor, rows: Tensor, weight: Tensor, into: Tensor, size: int
) -> Tensor:
    """Weighted sums of rows; differentiable, and one call for all clients under `vmap`.

    Args:
        table: float32 (num_rows, d).
        rows: int64 (n,), rows of the table; may repeat.
        weight: float32 (n,).
        into: int64 (n,), index of the sum that each row is added to.
        size: number of sums.

    Returns:
        float32 (size, d); zero for sums without rows.
    """
    summed: Tensor = _WeightedScatterSum.apply(table, rows, weight, into, size)  # type: ignore[no-untyped-call]  # PyTorch has none
    return summed


class _GatherDot(Function):
    """Autograd function of `gather_dot`."""

    @staticmethod
    def forward(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
        if left.device.type != "cpu":
            return (left[left_rows] * right[right_rows]).sum(-1)
        products = left.new_empty(len(left_rows))
        _run_kernel("gather_dot", left, left_rows, right, right_rows, products)
        return products

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        left, left_rows, right, right_rows = ctx.saved_tensors
        left_slope = right_slope = None
        if ctx.needs_input_grad[0]:
            left_slope = weighted_scatter_sum(right, right_rows, slope, left_rows, len(left))
        if ctx.needs_input_grad[2]:
            right_slope = weighted_scatter_sum(left, left_rows, slope, right_rows, len(right))
        return left_slope, None, right_slope, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        left, left_rows, right, right_rows = inputs
        num_clients = info.batch_size
        products = gather_dot(
            *flat(left, dims[0], left_rows, dims[1], num_clients),
            *flat(right, dims[2], right_rows, dims[3], num_clients),
        )
        return products.view(num_clients, -1), 0


class _WeightedScatterSum(Function):
    """Autograd function of `weighted_scatter_sum`."""

    @staticmethod
    def forward(table: Tensor, rows: Tensor, weight: Tensor, into: Tensor, size: int) -> Tensor:
        summed = table.new_zeros(size, table.shape[1])
        if table.device.type != "cpu":
            return summed.index_add_(0, into, table[rows] * weight[:, None])
        _run_kernel("weighted_scatter_sum", table, rows, weight, into, summed)
        return summed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        table, rows, weight, into = ctx.saved_tensors
        table_slope = weight_slope = None
        if ctx.needs_input_grad[0]:
            table_slope = weighted_scatter_sum(slope, into, weight, rows, len(table))
        if ctx.needs_input_grad[2]:
            weight_slope = gather_dot(slope, into, table, rows)
        return table_slope, None, weight_slope, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        table, rows, weight, into, size = inputs
        num_clients = info.batch_size
        summed = weighted_scatter_sum(
            *flat(table, dims[0], rows, dims[1], num_clients),
            spread(weight, dims[2], num_clients).reshape(-1),
            offset(spread(into, dims[3], num_clients), size).reshape(-1),
            num_clients * size,
        )
        return summed.view(num_clients, size, -1), 0


def _run_kernel(name: str, *tensors: Tensor) -> None:
    # Imported here: runs of models without histories do not load the compiler.
    from fedrec_flower.models.ops import kernels

    getattr(kernels, name)(*(tensor.detach().contiguous().numpy() for tensor in tensors))


def spread(tensor: Tensor, dim: int | None, num_clients: int) -> Tensor:
    """A tensor with the clients' axis in front; `dim` is its place in `vmap`, None without one."""
    if dim is None:
        return tensor.expand(num_clients, *tensor.shape)
    return tensor.movedim(dim, 0)


def offset(rows: Tensor, size: int) -> Tensor:
    """Rows (num_clients, n) of each client's table as rows of the concatenated tables.

    Args:
        rows: int64 (num_clients, n).
        size: rows of each client's table.
    """
    return rows + torch.arange(len(rows), device=rows.device)[:, None] * size


def flat(
    table: Tensor, dim: int | None, rows: Tensor, rows_dim: int | None, num_clients: int
) -> tuple[Tensor, Tensor]:
    """Concatenate the clients' tables, and renumber rows; a common table is not copied."""
    rows = spread(rows, rows_dim, num_clients)
    if dim is None:
        return table, rows.reshape(-1)
    tables = spread(table, dim, num_clients)
    return tables.reshape(-1, tables.shape[2]), offset(rows, tables.shape[1]).reshape(-1)
