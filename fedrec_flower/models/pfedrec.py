"""PFedRec: a personal score function over shared item vectors, and no user vectors.

Shared: item vectors. Personal: the score function; with `score_with=own` also the item vectors as
the client's own last training left them, with which it scores (the paper's "dual
personalization").

Source: Zhang et al. 2023, "Dual Personalization on Federated Recommendation", Algorithm 1.

GPFedRec: every client begins with item vectors made of those of clients like it.

Shared: item vectors, of which the server gives each client a version of its own, the mean over
its neighbours in a graph of clients: see `strategies.graph`. Personal: the score function; with
`score_with=own` also the item vectors as the client's own last training left them.

The paper's clients start from the mean over all clients and a term of the loss pulls them towards
their own version; here they start from it, where that pull leads, so that half the bytes go down,
and `strategy.pull` keeps them near. The score function is PFedRec's: the paper feeds a network of
the client's own with user and item vector, but the client's user is always the same.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
Algorithm 1.
"""

from typing import ClassVar, Literal

from torch import Tensor, nn

from fedrec_flower.models.base import Recommender, check_vectors, middle
from fedrec_flower.models.personal_head import PersonalHead


class PFedRec(PersonalHead):
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
        """See `PersonalHead.vectors`."""
        table = self.item_embedding
        vectors: Tensor = table.weight if items is None else table(items)
        return vectors

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """See `Recommender.phases`: the score function, then the item vectors."""
        del epoch
        return [self.personal, self.item_rows]


class GPFedRec(PFedRec):
    """Score = the client's weights . its version of the item vector + the client's bias.

    Score function and item vectors learn from each batch at once. Arguments: see `PFedRec`;
    `score_with=shared` scores with the version that the server has just made for the client.
    """

    def phases(self, epoch: int) -> list[frozenset[str]]:
        """See `Recommender.phases`: all at once."""
        return Recommender.phases(self, epoch)
