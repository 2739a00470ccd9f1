"""What PFedRec and FedRAP share: a linear score function that belongs to the client."""

from abc import abstractmethod

import numpy as np
from torch import Tensor, nn

from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import Recommender, normal


class PersonalHead(Recommender):
    """Score = the client's weights . item vector + the client's bias; its users are scored alike.

    So clients must be users: a silo's users share one list, and without federation, where one
    client holds them all, everybody gets about what is popular: no ceiling of these models.

    Attributes:
        score: the score function, personal; made by the model after its item tables.
        start: what the bias begins at; 0 leaves it to PyTorch's own law.
        init_std: standard deviation of the initial item vectors.
    """

    score: nn.Linear
    start: float
    init_std: float

    @abstractmethod
    def vectors(self, items: Tensor | None) -> Tensor:
        """The vectors (n, d) that items are scored by; of all loaded ones for None."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """See `Recommender.forward`; all users of a client are scored alike."""
        del users
        scores: Tensor = self.score(self.vectors(items)).squeeze(-1)
        return scores

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`."""
        scores: Tensor = self.score(self.vectors(None)).squeeze(-1)
        return scores.repeat(len(users), 1)

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal item vectors; the score function starts as PyTorch starts a linear layer."""
        if name in self.item_rows:
            return normal(shape, self.init_std, rng)
        if self.start and name == "score.bias":
            return np.full(shape, self.start, np.float32)
        bound = self.score.in_features**-0.5
        return rng.uniform(-bound, bound, shape).astype(np.float32)
