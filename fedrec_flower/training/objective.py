"""What every engine descends: the loss of each sample, and what the model adds to it."""

import torch
from torch import Tensor, nn

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.history import History
from fedrec_flower.training.losses import LOSSES


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
