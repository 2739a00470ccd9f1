"""Two towers with item embeddings: each item has features and a trained vector.

Genres and years do not show how popular a film is, so for users who never trained `two_tower` is
worse than popularity. Here each item adds a vector and a bias of its own to those of its features.
A user is still described by attributes and a profile only, so users who never trained are scored
like all others. An item without training interactions is not scored well: its own vector was only
trained as a negative.

Shared: the towers, the items' own vectors. Public and personal: as in `two_tower`.

Source: Kula 2015 (LightFM), section 3, where an item's identity is one more of its features; Yi et
al. 2019, section 3.
"""

from torch import Tensor
from typing_extensions import override

from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import check_vectors
from fedrec_flower.models.layers import ItemEmbedding, Normal
from fedrec_flower.models.two_tower import TwoTower


class Hybrid(TwoTower):
    """Score = score of `TwoTower` + user tower . the item's own vector + the item's own bias.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item table.
        task: "ranking"; see `TwoTower`, as for all that follow except the last.
        item_features: float32 (num_items, num_features).
        num_attributes: number of attributes of a user.
        embedding_dim: length of the towers' output vectors.
        hidden_dims: widths of each tower's hidden layers.
        history_dropout: share of the rounds in which a user trains without a history.
        init_std: standard deviation of the items' own initial vectors and biases.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        task: str,
        item_features: Float32Array,
        num_attributes: int,
        embedding_dim: int,
        hidden_dims: list[int],
        history_dropout: float,
        init_std: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        super().__init__(
            num_users,
            task,
            item_features,
            num_attributes,
            embedding_dim,
            hidden_dims,
            history_dropout,
        )
        self.item_embedding = ItemEmbedding(num_items, embedding_dim + 1, init=Normal(init_std))

    @override
    def item_vectors(self, items: Tensor) -> Tensor:
        own: Tensor = self.item_embedding(items)
        return super().item_vectors(items) + own
