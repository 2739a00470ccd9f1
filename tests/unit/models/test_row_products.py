"""Products and sums of rows against plain indexing, their gradients, and many clients at once."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.func import vmap
from torch.testing import assert_close

from fedrec_flower.models.ops.row_products import gather_dot, weighted_scatter_sum

CLIENTS, LEFT, RIGHT, DIM = 3, 4, 6, 5
SIZES = st.integers(0, 9)
SEEDS = st.integers(0, 9)


def table(num_rows: int, rng: torch.Generator, *clients: int) -> Tensor:
    return torch.randn(*clients, num_rows, DIM, generator=rng).requires_grad_()


def rows(num_rows: int, size: int, rng: torch.Generator, *clients: int) -> Tensor:
    return torch.randint(num_rows, (*clients, size), generator=rng)


def assert_same(result: Tensor, expected: Tensor, leaves: list[Tensor]) -> None:
    """Compare values, and gradients of a sum with distinct weights."""
    assert_close(result, expected)
    slope = torch.arange(1.0, 1 + result.numel()).view_as(result)
    pairs = (torch.autograd.grad((each * slope).sum(), leaves) for each in (result, expected))
    for ours, plain in zip(*pairs, strict=True):
        assert_close(ours, plain)


@given(size=SIZES, seed=SEEDS)
def test_gather_dot_equals_dot_products_of_copied_rows(size: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    left, right = table(LEFT, rng), table(RIGHT, rng)
    i, j = rows(LEFT, size, rng), rows(RIGHT, size, rng)
    assert_same(gather_dot(left, i, right, j), (left[i] * right[j]).sum(-1), [left, right])


@given(size=SIZES, seed=SEEDS)
def test_weighted_scatter_sum_equals_a_matrix_product(size: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    right, weight = table(RIGHT, rng), torch.randn(size, generator=rng).requires_grad_()
    i, j = rows(LEFT, size, rng), rows(RIGHT, size, rng)
    matrix = torch.zeros(LEFT, RIGHT).index_put((i, j), weight, accumulate=True)
    assert_same(weighted_scatter_sum(right, j, weight, i, LEFT), matrix @ right, [right, weight])


@pytest.mark.parametrize("one_for_all", [True, False])
@pytest.mark.parametrize("operation", ["gather_dot", "weighted_scatter_sum"])
def test_vmap_over_clients_equals_single_calls(operation: str, *, one_for_all: bool) -> None:
    rng = torch.Generator().manual_seed(1)
    left = table(LEFT, rng, CLIENTS)
    right = table(RIGHT, rng) if one_for_all else table(RIGHT, rng, CLIENTS)
    weight = torch.randn(CLIENTS, 7, generator=rng).requires_grad_()
    i, j = rows(LEFT, 7, rng, CLIENTS), rows(RIGHT, 7, rng, CLIENTS)

    def one(left: Tensor, right: Tensor, weight: Tensor, i: Tensor, j: Tensor) -> Tensor:
        if operation == "gather_dot":
            return gather_dot(left, i, right, j) * weight
        return weighted_scatter_sum(right, j, weight, i, LEFT) * left

    together = vmap(one, in_dims=(0, None if one_for_all else 0, 0, 0, 0))
    alone = [
        one(left[c], right if one_for_all else right[c], weight[c], i[c], j[c])
        for c in range(CLIENTS)
    ]
    assert_same(together(left, right, weight, i, j), torch.stack(alone), [left, right, weight])


@pytest.mark.parametrize("row", [-1, RIGHT])
def test_rows_outside_the_table_are_rejected(row: int) -> None:
    rng = torch.Generator().manual_seed(1)
    left, right = table(LEFT, rng), table(RIGHT, rng)
    inside, outside = torch.tensor([0, 1]), torch.tensor([0, row])
    with pytest.raises(IndexError, match="outside its table"):
        gather_dot(left, inside, right, outside)
    with pytest.raises(IndexError, match="outside its table"):
        weighted_scatter_sum(right, outside, torch.ones(2), inside, LEFT)


def test_rows_without_weight_are_not_read() -> None:
    spoilt = torch.tensor([[1.0, 2.0], [torch.inf, torch.nan]])
    summed = weighted_scatter_sum(
        spoilt, torch.tensor([0, 1]), torch.tensor([2.0, 0.0]), torch.tensor([0, 0]), 1
    )
    assert_close(summed, torch.tensor([[2.0, 4.0]]))
