"""PFedRec and GPFedRec: a personal score function over shared item vectors; no user vectors.

PFedRec. Shared: item vectors. Personal: the score function; with `score_with=own` the client also
stores the item vectors that its last training produced and scores with them (the paper's "dual
personalization").

Source: Zhang et al. 2023, "Dual Personalization on Federated Recommendation", Algorithm 1.

GPFedRec: each client starts from item vectors that are averaged over similar clients. Shared: item
vectors; the server gives each client its own version, the mean over the client's neighbours in a
graph of clients: see `strategies.user_graph`. Personal: as in PFedRec.

In the paper, clients start from the mean over all clients, and a term of the loss pulls them
towards their own version. Here they start from their own version, which halves the bytes that are
sent down, and `strategy.pull` keeps them near it. The score function is PFedRec's: the paper uses
a personal network of user and item vector, but a client's user is always the same.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
Algorithm 1.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor
from typing_extensions import override

from fedrec_flower.models.abilities import AlternatingUpdates
from fedrec_flower.models.base import check_vectors, middle
from fedrec_flower.models.layers import ItemEmbedding, LocallyAdapted, Normal
from fedrec_flower.models.personal_head import PersonalHead, personal_head, table_products


class _PersonalHeadOverItems(PersonalHead):
    """Score = the client's weights . item vector + the client's bias.

    Args:
        num_items: rows of the item table.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "rating" starts the bias in the middle of the rating range.
        embedding_dim: length of an item vector.
        init_std: standard deviation of the initial item vectors.
        score_with: "shared" scores with the item vectors that the server just made, "own" with
            those that the client's last training produced.
    """

    def __init__(
        self,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        score_with: Literal["own", "shared"],
    ) -> None:
        check_vectors(embedding_dim, init_std)
        super().__init__()
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        if score_with == "own":
            LocallyAdapted(self.item_embedding)
        self.score = personal_head(embedding_dim, middle(rating_range) if task == "rating" else 0.0)

    @override
    def vectors(self, items: Tensor | None) -> Tensor:
        table = self.item_embedding
        vectors: Tensor = table.weight if items is None else table(items)
        return vectors

    @override
    def products(
        self, weights: Tensor, parameters: Mapping[str, Tensor], per_client: frozenset[str]
    ) -> Tensor:
        name = "item_embedding.weight"
        return table_products(weights, parameters[name], per_client=name in per_client)


class PFedRec(_PersonalHeadOverItems, AlternatingUpdates):
    """From each batch the score function learns first, then the item vectors."""

    @override
    def update_groups(self, epoch: int) -> list[frozenset[str]]:
        del epoch
        return [self.personal, self.item_rows]


class GPFedRec(_PersonalHeadOverItems):
    """Score function and item vectors learn from each batch at once.

    The item vectors are the client's own version, which the server makes for it.
    """
