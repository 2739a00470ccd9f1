"""Losses: from the scores of samples to a loss each, in the samples' order.

What every engine descends: the loss of each sample, and what the model adds to it.
"""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History

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


class Objective(nn.Module):
    """The losses of samples under a model's parameters.

    Args:
        model: the recommender; its parameters are named "model.<name>" here.
        loss: a key of `LOSSES`.
    """

    def __init__(self, model: Recommender, loss: str) -> None:
        super().__init__()
        self.model, self._loss = model, LOSSES[loss]

    def forward(
        self, users: Tensor, items: Tensor, target: Tensor, history: History | None
    ) -> Tensor:
        """The loss of each sample.

        Args:
            users: int64 (n * width,), the user row of each item.
            items: int64 (n * width,), item rows, a sample's one after another.
            target: float32 (n,), labels or ratings.
            history: what the users had, for a model that reads it.

        Returns:
            float32 (n,).
        """
        reading = () if history is None else (history,)
        scores: Tensor = self.model(users, items, *reading)
        losses = self._loss(scores.view(len(target), -1), target)
        penalty = self.model.penalty(users, items, *reading)
        if penalty is None:
            return losses
        return losses + penalty.view(len(target), -1).mean(-1)


def named(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Parameters of a model under the names that its `Objective` gives them."""
    return {f"model.{name}": value for name, value in parameters.items()}
