"""Optional abilities of a recommender: a model inherits those that it has.

The rest of the package asks `isinstance(model, ...)`; a model without an ability needs no member
for it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn

from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.data.prepared import Columns


class AlternatingUpdates(ABC):
    """A model whose parameters learn in turn from each batch."""

    @abstractmethod
    def update_groups(self, epoch: int) -> list[frozenset[str]]:
        """Names of the parameters of each step on a batch, in the order of the steps.

        Args:
            epoch: local epoch, counted from zero.
        """


class Regularized(ABC):
    """A model whose objective adds a term to the loss of each pair.

    Attributes:
        may_be_negative: True if the term may make a loss negative.
    """

    may_be_negative: ClassVar[bool] = False

    @abstractmethod
    def regularizer(self, users: Tensor, items: Tensor) -> Tensor | None:
        """The added term of each pair.

        A `HistoryRecommender` takes `history` as a third argument, as in its `forward`.

        Args:
            users: int64 (batch,), rows of the user tables.
            items: int64 (batch,), rows of the item tables.

        Returns:
            float32 (batch,); None without an added term.
        """


class RoundAware(ABC):
    """A model whose objective depends on the round."""

    @abstractmethod
    def on_round_start(self, round_: int) -> None:
        """Called on the client before it trains in a round.

        Args:
            round_: the round, counted from one.
        """


class ServerPostprocess(ABC):
    """A model whose shared parameters the server rewrites after each step of the strategy."""

    @abstractmethod
    def after_server_step(self, shared: Tensors, rng: np.random.Generator) -> Tensors:
        """The shared parameters that the next round starts from.

        Args:
            shared: shared parameters by name; empty for a model without shared parameters. With
                several versions of the model, each array has a leading axis of versions.
            rng: generator of this round.
        """


class HistoryBased(ABC):
    """A model that scores users from their interactions."""

    @abstractmethod
    def set_history(self, history: Columns) -> None:
        """Set the interactions that scores are computed from. Called before evaluation.

        Args:
            history: interactions of the loaded users, in the order of their rows.
        """


class SideInformation(ABC):
    """A model that reads attributes of users and features of items from its buffers.

    Every buffer is marked `PerUser` or `PerItem`. Buffers are never trained and never sent.

    Attributes:
        history_dropout: share of the rounds in which a user trains as if without a history.
    """

    history_dropout: float = 0.0

    @abstractmethod
    def side_information(
        self, attributes: Float32Array, history: Columns, items: IndexArray | None
    ) -> Tensors:
        """Values of the model's buffers, which each client computes from its own data.

        Args:
            attributes: float32 (num_users, num_attributes), attributes of the loaded users.
            history: interactions of the loaded users; items by their codes.
            items: int64 (n,), codes of the loaded items; None for the whole catalogue.
        """


@dataclass(frozen=True, slots=True)
class BilinearForm:
    """Names of the parameters of a bilinear score; "" for a term that the model does not have.

    score = global bias + user bias + item bias + sum over d of weight[d] * user[d] * item[d]

    Attributes:
        user: user vectors, (num_users, d).
        item: item vectors, (num_items, d).
        item_bias: item biases, (num_items, 1).
        user_bias: user biases, (num_users, 1).
        global_bias: global bias, (1,).
        weight: weights, (1, d).
    """

    user: str
    item: str
    item_bias: str = ""
    user_bias: str = ""
    global_bias: str = ""
    weight: str = ""

    @property
    def shared_names(self) -> set[str]:
        """The parameters that do not belong to users."""
        return {self.item, self.item_bias, self.global_bias, self.weight} - {""}


class Bilinear(ABC):
    """A model whose score may be bilinear in user and item vectors.

    Bilinear models train in a compiled loop, and attacks on item gradients apply to them.
    """

    @abstractmethod
    def bilinear_form(self) -> BilinearForm | None:
        """The parameters of the score; None if this configuration is not bilinear."""


def bilinear_form(model: nn.Module) -> BilinearForm | None:
    """The parameters of a model's bilinear score; None if its score is not bilinear."""
    return model.bilinear_form() if isinstance(model, Bilinear) else None
