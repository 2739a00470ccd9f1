"""A linear score function that belongs to the client: the common part of PFedRec and FedRAP."""

from abc import abstractmethod
from collections.abc import Mapping

import torch
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

    @abstractmethod
    def products(
        self, weights: Tensor, parameters: Mapping[str, Tensor], per_client: frozenset[str]
    ) -> Tensor:
        """Products of the weights of several clients with the vectors of all items.

        Args:
            weights: float32 (num_clients, d).
            parameters: as for `score_clients`.
            per_client: as for `score_clients`.

        Returns:
            float32 (num_clients, num_items).
        """

    @override
    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        del users
        scores: Tensor = self.score(self.vectors(items)).squeeze(-1)
        return scores

    @override
    def score_all(self, users: Tensor) -> Tensor:
        scores: Tensor = self.score(self.vectors(None)).squeeze(-1)
        return scores.repeat(len(users), 1)

    @override
    def score_clients(
        self, parameters: Mapping[str, Tensor], per_client: frozenset[str], num_users: int
    ) -> Tensor:
        """The weights of the clients are the vectors of their users: one product of matrices."""
        weights, bias = parameters["score.weight"][:, 0], parameters["score.bias"]
        scores = self.products(weights, parameters, per_client) + bias
        return scores[:, None].expand(-1, num_users, -1)


def table_products(weights: Tensor, table: Tensor, *, per_client: bool) -> Tensor:
    """Products (num_clients, num_items) of weights (num_clients, d) and rows of a table.

    Args:
        weights: float32 (num_clients, d).
        table: float32 (num_items, d), or (num_clients, num_items, d) with `per_client`.
        per_client: whether each client has its own table.
    """
    if per_client:
        return torch.bmm(table, weights[:, :, None]).squeeze(-1)
    return weights @ table.T


def personal_head(embedding_dim: int, start: float) -> nn.Linear:
    """A personal score function; it starts as PyTorch starts a linear layer.

    Args:
        embedding_dim: length of an item vector.
        start: initial bias; 0 draws the bias as PyTorch does.
    """
    uniform = Uniform(embedding_dim**-0.5)
    bias = Constant(start) if start else uniform
    return Personal(Initialized(nn.Linear(embedding_dim, 1), weight=uniform, bias=bias))
