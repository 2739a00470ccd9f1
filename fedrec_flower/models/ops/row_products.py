"""Products of rows of two tables, and sums of rows: what scoring and reading histories is made of.

Rows are looked up where they stand; no copy of a row per pair is made, neither on the way there nor
back. One is the other's gradient, as a product with a sparse matrix and the product sampled at its
entries are.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function


def gather_dot(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
    """Products of pairs of rows; differentiable, and many clients' are one under `vmap`.

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
    """Weighted sums of rows; differentiable, and many clients' are one under `vmap`.

    Args:
        table: float32 (num_rows, d).
        rows: int64 (n,), rows of the table; may repeat.
        weight: float32 (n,).
        into: int64 (n,), the sum that each goes into.
        size: how many sums there are.

    Returns:
        float32 (size, d); zero where nothing goes into.
    """
    summed: Tensor = _WeightedScatterSum.apply(table, rows, weight, into, size)  # type: ignore[no-untyped-call]  # PyTorch has none
    return summed


class _GatherDot(Function):
    """See `gather_dot`."""

    @staticmethod
    def forward(left: Tensor, left_rows: Tensor, right: Tensor, right_rows: Tensor) -> Tensor:
        if left.device.type != "cpu":
            return (left[left_rows] * right[right_rows]).sum(-1)
        products = left.new_empty(len(left_rows))
        _run("gather_dot", left, left_rows, right, right_rows, products)
        return products

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        left, left_rows, right, right_rows = ctx.saved_tensors
        to_left = to_right = None
        if ctx.needs_input_grad[0]:
            to_left = weighted_scatter_sum(right, right_rows, slope, left_rows, len(left))
        if ctx.needs_input_grad[2]:
            to_right = weighted_scatter_sum(left, left_rows, slope, right_rows, len(right))
        return to_left, None, to_right, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        left, left_rows, right, right_rows = inputs
        size = info.batch_size
        sides = (
            *flat(left, dims[0], left_rows, dims[1], size),
            *flat(right, dims[2], right_rows, dims[3], size),
        )
        return gather_dot(*sides).view(size, -1), 0


class _WeightedScatterSum(Function):
    """See `weighted_scatter_sum`."""

    @staticmethod
    def forward(table: Tensor, rows: Tensor, weight: Tensor, into: Tensor, size: int) -> Tensor:
        summed = table.new_zeros(size, table.shape[1])
        if table.device.type != "cpu":
            return summed.index_add_(0, into, table[rows] * weight[:, None])
        _run("weighted_scatter_sum", table, rows, weight, into, summed)
        return summed

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del output
        ctx.save_for_backward(*inputs[:4])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        table, rows, weight, into = ctx.saved_tensors
        to_table = to_weight = None
        if ctx.needs_input_grad[0]:
            to_table = weighted_scatter_sum(slope, into, weight, rows, len(table))
        if ctx.needs_input_grad[2]:
            to_weight = gather_dot(slope, into, table, rows)
        return to_table, None, to_weight, None, None

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        table, rows, weight, into, size = inputs
        clients = info.batch_size
        source = flat(table, dims[0], rows, dims[1], clients)
        every = spread(weight, dims[2], clients).reshape(-1)
        target = offset(spread(into, dims[3], clients), size).reshape(-1)
        summed = weighted_scatter_sum(*source, every, target, clients * size)
        return summed.view(clients, size, -1), 0


def _run(name: str, *tensors: Tensor) -> None:
    # Imported here: whoever reads no history need not wait for the compiler.
    from fedrec_flower.models.ops import kernels

    getattr(kernels, name)(*(tensor.detach().contiguous().numpy() for tensor in tensors))


def spread(tensor: Tensor, dim: int | None, clients: int) -> Tensor:
    """A tensor with the axis of clients, as `vmap` hands it to a rule, in front."""
    return tensor.expand(clients, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def offset(rows: Tensor, size: int) -> Tensor:
    """Rows (clients, n) of each client's table as rows of all tables, of one size, in one."""
    return rows + torch.arange(len(rows), device=rows.device)[:, None] * size


def flat(
    table: Tensor, dim: int | None, rows: Tensor, rows_dim: int | None, clients: int
) -> tuple[Tensor, Tensor]:
    """One table of all clients' rows, and rows of it; a table that they share stays as it is."""
    rows = spread(rows, rows_dim, clients)
    if dim is None:
        return table, rows.reshape(-1)
    tables = spread(table, dim, clients)
    return tables.reshape(-1, tables.shape[2]), offset(rows, tables.shape[1]).reshape(-1)
