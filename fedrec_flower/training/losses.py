"""Losses: from the scores of a batch of samples to one number, a mean over the batch."""

from collections.abc import Callable
from typing import Final

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def bce(scores: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy of logits (batch, 1) against labels (batch,), in nats."""
    return functional.binary_cross_entropy_with_logits(scores[:, 0], target)


def bpr(scores: Tensor, _target: Tensor) -> Tensor:
    """Pairwise loss of scores (batch, 2) of (liked, not liked). Source: Rendle et al. 2009."""
    return functional.softplus(scores[:, 1] - scores[:, 0]).mean()


def mse(scores: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of scores (batch, 1) against targets (batch,), in squared units."""
    return functional.mse_loss(scores[:, 0], target)


LOSSES: Final[dict[str, Loss]] = {"bce": bce, "bpr": bpr, "mse": mse}
