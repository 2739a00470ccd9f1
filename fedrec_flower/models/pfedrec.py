"""PFedRec: a personal score function over shared item vectors, and no user vectors.

Shared: item vectors. Personal: the score function; with `score_with=own` also the item vectors as
the client's own last training left them, with which it scores (the paper's "dual
personalization").

Source: Zhang et al. 2023, "Dual Personalization on Federated Recommendation", Algorithm 1.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from fedrec_flower.models.base import check_vectors, middle
from fedrec_flower.models.personal_score import PersonalScore


class PFedRec(PersonalScore):
    """Score = the client's weights . item vector + the client's bias.

    From each batch the score function learns first, the item vectors after it.

    Args:
        num_users: not used: a client's users share its score function.
        num_items: rows of the item table.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the bias in the middle of the rating range.
        embedding_dim: length of an item vector.
        init_std: standard deviation of the initial item vectors.
        score_with: "shared" scores with the item vectors the server has just averaged, "own" with
            those that the client's last training left behind.
    """

    item_rows: ClassVar[frozenset[str]] = frozenset({"item_embedding.weight"})
    personal: ClassVar[frozenset[str]] = frozenset({"score.weight", "score.bias"})

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        score_with: Literal["own", "shared"],
    ) -> None:
        del num_users
        check_vectors(embedding_dim, init_std)
        super().__init__()
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.score = nn.Linear(embedding_dim, 1)
        self.start = middle(rating_range) if task == "rating" else 0.0
        self.init_std = init_std
        self.tuned = self.item_rows if score_with == "own" else frozenset()

    def vectors(self, items: Tensor | None) -> Tensor:
        """See `PersonalScore.vectors`."""
        table = self.item_embedding
        vectors: Tensor = table.weight if items is None else table(items)
        return vectors

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """See `Recommender.phases`: the score function, then the item vectors."""
        del epoch
        return [self.personal, self.item_rows]
