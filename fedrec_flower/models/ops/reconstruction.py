"""User vectors rebuilt by descent on what users had: compiled, a user's steps one after another.

Every step looks at all entries of a user twice. User by user they stay where the processor has them
at hand; step by step, all users at once, they would come from far away every time.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from fedrec_flower.models.history import History
from fedrec_flower.models.ops.row_products import flat, offset, spread


class ReconstructionConfig(NamedTuple):
    """How users are rebuilt.

    A step is `rate` times the way along the gradient to the lowest point of a parabola that bounds
    the loss: along the gradient g the loss bends no more than the mean of (g . item vector)^2, a
    quarter of it where the loss is cross-entropy.

    Attributes:
        num_steps: how many steps.
        rate: how far they go, in the units above.
        rates: whether the loss is half the squared error, not cross-entropy.
    """

    num_steps: int
    rate: np.float32
    rates: bool


def reconstruct_users(
    item: Tensor, bias: Tensor, history: History, how: ReconstructionConfig
) -> Tensor:
    """Descend from zero on the mean loss of what users had, with the items held fixed.

    Args:
        item: float32 (num_items, d), item vectors.
        bias: float32 (num_items, 1), what every score begins at.
        history: of users, one user's entries after another's but for those without weight.
        how: how far, and on which loss.

    Returns:
        float32 (num_users, d), through which no gradient flows; of many clients under `vmap` too.
    """
    read = (history.user, history.item, history.target, history.weight)
    users: Tensor = _Reconstruction.apply(item, bias, *read, len(history.last), how)  # type: ignore[no-untyped-call]  # PyTorch has none
    return users


class _Reconstruction(Function):
    """See `reconstruct_users`."""

    @staticmethod
    def forward(
        item: Tensor,
        bias: Tensor,
        user: Tensor,
        row: Tensor,
        target: Tensor,
        weight: Tensor,
        size: int,
        how: ReconstructionConfig,
    ) -> Tensor:
        # Imported here: whoever rebuilds no users need not wait for the compiler.
        from fedrec_flower.models.ops import kernels

        users = np.zeros((size, item.shape[1]), np.float32)
        tensors = (item, bias, user, row, target, weight)
        arguments: list[Any] = [*(tensor.numpy(force=True) for tensor in tensors), how, users]
        kernels.reconstruct_users(*arguments)
        return torch.from_numpy(users).to(item.device)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        del inputs
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *slopes: Any) -> tuple[None, ...]:
        del ctx, slopes
        return (None,) * 8

    @staticmethod
    def vmap(info: Any, dims: tuple[Any, ...], *inputs: Any) -> tuple[Tensor, int]:
        clients, (item, bias, user, row, target, weight, size, how) = info.batch_size, inputs
        table, rows = flat(item, dims[0], row, dims[3], clients)
        biases, _ = flat(bias, dims[1], row, dims[3], clients)
        owner = offset(spread(user, dims[2], clients), size).reshape(-1)
        values = (spread(target, dims[4], clients), spread(weight, dims[5], clients))
        columns = (owner, rows, *(value.reshape(-1) for value in values))
        users = _Reconstruction.apply(table, biases, *columns, clients * size, how)  # type: ignore[no-untyped-call]  # PyTorch has none
        return users.view(clients, size, -1), 0
