"""Loss functions, one loss per sample, and the training objective with regularization."""

from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedrec_flower.models.abilities import Regularized
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History

Loss = Callable[[Tensor, Tensor], Tensor]


def bce(scores: Tensor, target: Tensor) -> Tensor:
    """Binary cross-entropy (n,) of logits (n, 1) against labels (n,), in nats."""
    return functional.binary_cross_entropy_with_logits(scores[:, 0], target, reduction="none")


def bpr(scores: Tensor, _target: Tensor) -> Tensor:
    """Pairwise loss (n,) of scores (n, 2): positive item, negative item. Rendle et al. 2009."""
    return functional.softplus(scores[:, 1] - scores[:, 0])


def softmax(scores: Tensor, _target: Tensor) -> Tensor:
    """Cross-entropy (n,), in nats, of the positive item, the first of scores (n, width).

    The multinomial likelihood of the positive item against its sampled negatives. With one
    negative it equals `bpr`. Source: Liang et al. 2018, eq. 2; sampled: Wu et al. 2024, "On the
    effectiveness of sampled softmax loss for item recommendation".
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
        self.model = model
        self._loss = LOSSES[loss]

    def forward(
        self, users: Tensor, items: Tensor, target: Tensor, history: History | None
    ) -> Tensor:
        """The loss of each sample.

        Args:
            users: int64 (n * width,), the user row of each item.
            items: int64 (n * width,), item rows, one sample's items after another's.
            target: float32 (n,), labels or ratings.
            history: the users' histories; None for models without histories.

        Returns:
            float32 (n,).
        """
        inputs = (users, items) if history is None else (users, items, history)
        scores: Tensor = self.model(*inputs)
        losses = self._loss(scores.view(len(target), -1), target)
        if not isinstance(self.model, Regularized):
            return losses
        added = self.model.regularizer(*inputs)
        if added is None:
            return losses
        return losses + added.view(len(target), -1).mean(-1)


def named(parameters: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A model's parameters under the names that `Objective` gives them."""
    return {f"model.{name}": value for name, value in parameters.items()}
