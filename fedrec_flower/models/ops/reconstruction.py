"""User vectors from histories by gradient descent, in a compiled loop over users.

Every step reads all entries of a user twice. Taken user by user, they stay in the processor's
cache; taken step by step for all users at once, they would be read from memory every time.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import Function

from fedrec_flower.models.history import History
from fedrec_flower.models.ops.row_products import flat, offset, spread


class ReconstructionConfig(NamedTuple):
    """How user vectors are reconstructed.

    A step is `rate` times the way along the gradient to the lowest point of a parabola above the
    loss: along the gradient g, the curvature of the loss is at most the mean of
    (g . item vector)^2, and a quarter of it for cross-entropy.

    Attributes:
        num_steps: number of steps.
        rate: length of a step, in the units above.
        squared_error: True if the loss is half the squared error instead of cross-entropy.
    """

    num_steps: int
    rate: np.float32
    squared_error: bool


def reconstruct_users(
    item: Tensor, bias: Tensor, history: History, config: ReconstructionConfig
) -> Tensor:
    """Minimise the mean loss of each user's history by gradient descent from zero, items fixed.

    Args:
        item: float32 (num_items, d), item vectors.
        bias: float32 (num_items, 1), constant part of each item's score.
        history: the users' histories; each user's entries of weight above 0 are contiguous.
        config: number and length of steps, and the loss.

    Returns:
        float32 (num_users, d), without gradient; one call for all clients under `vmap`.
    """
    columns = (history.user, history.item, history.target, history.weight)
    num_users = len(history.last)
    users: Tensor = _Reconstruction.apply(item, bias, *columns, num_users, config)  # type: ignore[no-untyped-call]  # PyTorch has none
    return users


class _Reconstruction(Function):
    """Autograd function of `reconstruct_users`."""

    @staticmethod
    def forward(
        item: Tensor,
        bias: Tensor,
        user: Tensor,
        row: Tensor,
        target: Tensor,
        weight: Tensor,
        num_users: int,
        config: ReconstructionConfig,
    ) -> Tensor:
        # Imported here: runs of other models do not load the compiler.
        from fedrec_flower.models.ops import kernels

        users = np.zeros((num_users, item.shape[1]), np.float32)
        tensors = (item, bias, user, row, target, weight)
        arguments: list[Any] = [*(tensor.numpy(force=True) for tensor in tensors), config, users]
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
        item, bias, user, row, target, weight, num_users, config = inputs
        num_clients = info.batch_size
        items, rows = flat(item, dims[0], row, dims[3], num_clients)
        biases, _ = flat(bias, dims[1], row, dims[3], num_clients)
        owner = offset(spread(user, dims[2], num_clients), num_users).reshape(-1)
        targets = spread(target, dims[4], num_clients).reshape(-1)
        weights = spread(weight, dims[5], num_clients).reshape(-1)
        columns = (owner, rows, targets, weights)
        users = _Reconstruction.apply(items, biases, *columns, num_clients * num_users, config)  # type: ignore[no-untyped-call]  # PyTorch has none
        return users.view(num_clients, num_users, -1), 0
