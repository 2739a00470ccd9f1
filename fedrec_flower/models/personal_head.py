"""A linear score function that belongs to the client: the common part of PFedRec and FedRAP."""

from abc import abstractmethod

from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.models.base import Recommender
from fedrec_flower.models.layers import Constant, Initialized, Personal, Uniform


class PersonalHead(Recommender):
    """Score = the client's weights . item vector + the client's bias.

    All users of a client get the same scores, so each client should be one user. With silos, or
    without federation, where one client holds all users, the scores approach popularity: that is
    no upper bound for these models.

    Attributes:
        score: the personal score function; the model creates it after its item tables.
    """

    score: nn.Linear

    @abstractmethod
    def vectors(self, items: Tensor | None) -> Tensor:
        """Item vectors (n, d) for scoring; of all loaded items if None."""

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        del users
        scores: Tensor = self.score(self.vectors(items)).squeeze(-1)
        return scores

    @override
    def score_all(self, users: Tensor) -> Tensor:
        scores: Tensor = self.score(self.vectors(None)).squeeze(-1)
        return scores.repeat(len(users), 1)


def personal_head(embedding_dim: int, start: float) -> nn.Linear:
    """A personal score function; it starts as PyTorch starts a linear layer.

    Args:
        embedding_dim: length of an item vector.
        start: initial bias; 0 draws the bias as PyTorch does.
    """
    uniform = Uniform(embedding_dim**-0.5)
    bias = Constant(start) if start else uniform
    return Personal(Initialized(nn.Linear(embedding_dim, 1), weight=uniform, bias=bias))
