"""Losses: from the scores of samples to a loss each, in the samples' order."""

from collections.abc import Callable
from typing import Final

from torch import Tensor
from torch.nn import functional

Loss = Callable[[Tensor, Tensor], Tensor]


def bce(scores: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (n,) of logits (n, 1) against labels (n,), in nats."""
    return functional.binary_cross_entropy_with_logits(scores[:, 0], target, reduction="none")


def bpr(scores: Tensor, _target: Tensor) -> Tensor:
    """Pairwise loss (n,) of scores (n, 2) of (liked, not liked). Source: Rendle et al. 2009."""
    return functional.softplus(scores[:, 1] - scores[:, 0])


def softmax(scores: Tensor, _target: Tensor) -> Tensor:
    """Cross-entropy (n,), in nats, of choosing the liked item, first of scores (n, width).

    The multinomial likelihood of the liked item against its sampled negatives; with one of them it
    is `bpr`. Source: Liang et al. 2018, eq. 2; sampled: Wu et al. 2024, "On the effectiveness of
    sampled softmax loss for item recommendation".
    """
    return scores.logsumexp(1) - scores[:, 0]


def mse(scores: Tensor, target: Tensor) -> Tensor:
    """Squared error (n,) of scores (n, 1) against targets (n,), in squared units."""
    return functional.mse_loss(scores[:, 0], target, reduction="none")


LOSSES: Final[dict[str, Loss]] = {"bce": bce, "bpr": bpr, "softmax": softmax, "mse": mse}
