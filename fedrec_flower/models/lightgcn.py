"""LightGCN in a federated form: every user propagates over the user's own ego graph only.

The ego graph of a user is a star: the user, the user's items, and an edge to each. A client can
know no more of the graph; it is LightGCN's graph without the other users. So an item has one
neighbour, its degree is 1, and the weight of an edge is 1 / sqrt(number of the user's items). A
client that holds several users has several stars, not one graph.

Shared: item vectors, item biases. Personal: user vectors. The messages are those of `mf`: a client
sends its change of the item rows it touched (its items and the drawn negatives), which enters an
average weighted by its number of interactions. No user vector, no layer of propagation and no list
of edges is sent to the server or to other clients. However, a single client's unprotected change
reveals edges by its rows and values. Common interests of two users reach them only through the
item vectors. LightGCN's paths over other users' vectors (in the items' layers, and so in users'
second and further layers) would need sums over users in every step.

On a star only two layers differ: the user's first layer is the sum of the items divided by the
square root of their number, the second is the user's own vector again, the third equals the first.
The number of layers therefore only sets the weight of each in the mean; one layer is half of the
vector that SVD++ compares with an item, with a single item table (Koren 2008, eq. 15).

Source: He et al. 2020, "LightGCN: simplifying and powering graph convolution network for
recommendation", eq. 3, 4 and 8; users' graphs on their devices as in Wu et al. 2022, FedPerGNN,
without its expansion by a third party.
"""

from torch import Tensor
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import check_dropout, check_vectors, middle
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.layers import ItemEmbedding, Normal, UserEmbedding, Zeros
from fedrec_flower.models.ops.row_products import gather_dot


class LightGCN(HistoryRecommender):
    """Score = mean of the user's layers . item vector + item bias + score offset.

    Layers count from 0, the user's own vector. A scored item is treated as outside the graph, as
    a held-out item is: its further layers are zero, and the mean of its layers is its vector over
    a constant, which is omitted. As in the paper, the item to predict is part of the user's graph
    in training: at 128 dimensions, removing its edge changed NDCG@10 on ML-100K's validation set
    by less than 0.001. A user without items is scored as others are, although all layers except
    layer 0 would be zero. Biases are not in the paper; here no degree shows an item's popularity.

    Args:
        num_users: rows of the user table.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "ranking" or "rating"; "rating" starts scores in the middle of the range. Edges do
            not depend on the rating.
        embedding_dim: length of a vector.
        init_std: standard deviation of the initial vectors.
        num_layers: layers of propagation; 0 is matrix factorisation with item biases.
        input_dropout: share of the edges that a local epoch removes, in [0, 1).
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        num_layers: int,
        input_dropout: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        require(num_layers >= 0, f"model.num_layers must not be negative: {num_layers}")
        check_dropout("input_dropout", input_dropout)
        super().__init__(num_users)
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.user_embedding = UserEmbedding(num_users, embedding_dim, init=Normal(init_std))
        self.score_offset = middle(rating_range) if task == "rating" else 0.0
        odd_layers = (num_layers + 1) // 2
        self.share_of_items = odd_layers / (num_layers + 1)
        self.input_dropout = input_dropout

    @override
    def encode_history(self, history: History) -> Tensor:
        """The part of the odd layers in the mean of the layers."""
        degree = history.total_by_user(history.weight)
        summed = history.sum_by_user(self.item_embedding.weight, history.weight)
        # Without edges the sum is zero, so any divisor except zero gives the same result.
        return self.share_of_items * summed * degree.clamp_min(1).rsqrt()

    @override
    def forward(self, users: Tensor, items: Tensor, history: History | None = None) -> Tensor:
        # First, because the order of terms is the order in which autograd sums gradients.
        user_scores = gather_dot(
            self.user_embedding.weight, users, self.item_embedding.weight, items
        )
        item_scores = super().forward(users, items, history)
        return item_scores + (1 - self.share_of_items) * user_scores

    @override
    def score_all(self, users: Tensor) -> Tensor:
        user_scores: Tensor = self.user_embedding(users) @ self.item_embedding.weight.T
        return super().score_all(users) + (1 - self.share_of_items) * user_scores
