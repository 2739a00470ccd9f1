"""Autoencoder: from a user's history to a score for every item.

Shared: item vectors of the input and of the output, item biases, the hidden bias.
Personal: none, so users who never trained can be scored.

For ranking this is the denoising autoencoder of Liang et al. 2018, "Variational autoencoders for
collaborative filtering" (Mult-DAE), with another loss: the multinomial likelihood is a softmax
over the whole catalogue, and a client holds only the rows that it touches, so the losses over
sampled negatives replace it (`training.loss=softmax` is the closest; the variational model is
`multvae`). As in the paper, the item to predict is part of the input; `input_dropout` removes it
from enough epochs that the model does not only learn to copy.
For rating it is AutoRec: Sedhain et al. 2015, eq. 1, user-based.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.models.base import check_dropout, check_vectors, middle
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.layers import HistoryEmbedding, ItemEmbedding, Normal, Zeros


class Autoencoder(HistoryRecommender):
    """State = activation(sqrt(d) * sum of value * input vector over the history / length + bias).

    For ranking, a value is 1 and the activation is tanh. For rating, a value is the rating minus
    the middle of the range, and the activation is a sigmoid. The length is the root of the sum of
    squared values, so every user's input has length one. Initial vectors are short, as suits the
    scores; the factor sqrt(d) makes them large enough to move the activation from the first round.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "ranking" or "rating".
        embedding_dim: width d of the hidden layer.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the history that a local epoch removes from the input, in [0, 1).
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        rating_range: tuple[float, float] | None,
        task: str,
        embedding_dim: int,
        init_std: float,
        input_dropout: float,
    ) -> None:
        check_vectors(embedding_dim, init_std)
        check_dropout("input_dropout", input_dropout)
        super().__init__(num_users)
        self.input_embedding = HistoryEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.hidden_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.predicts_ratings = task == "rating"
        self.score_offset = middle(rating_range) if self.predicts_ratings else 0.0
        self.input_dropout = input_dropout

    @override
    def encode_history(self, history: History) -> Tensor:
        value = (history.target - self.score_offset) * history.weight
        squares = history.total_by_user(value.square())
        # The length is zero without a history, and if all ratings are in the middle of the range.
        inverse = squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt() * (squares > 0)
        summed = history.sum_by_user(self.input_embedding.weight, value)
        hidden = summed * inverse * summed.shape[-1] ** 0.5 + self.hidden_bias
        state: Tensor = hidden.sigmoid() if self.predicts_ratings else hidden.tanh()
        return state
