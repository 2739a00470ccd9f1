"""Autoencoders: a user's history goes in, a score for every item comes out.

Shared: the item vectors of the input and of the output, the item biases, the hidden bias.
Personal: nothing, so users who never trained can be scored as well.

To rank this is the denoising autoencoder of Liang et al. 2018, "Variational autoencoders for
collaborative filtering" (Mult-DAE), in all but the loss: the multinomial likelihood is a softmax
over the whole catalogue, of which a client holds only the rows it touches, so the suite's losses
over sampled negatives take its place (`training.loss=softmax` is the nearest; the variational one
is `multvae`). The item to be predicted stands in the input, as there;
`input_dropout` leaves it out of enough epochs for the model to learn more than to copy.
To rate it is AutoRec: Sedhain et al. 2015, eq. 1, user-based.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedrec_flower.models.base import check_dropout, check_vectors, middle
from fedrec_flower.models.history import History, HistoryRecommender


class Autoencoder(HistoryRecommender):
    """State = activation(sqrt(d) * sum of value * input vector over the history / length + bias).

    To rank, a value is 1 and the activation tanh; to rate, a value is the rating less the middle
    of the range and the activation a sigmoid. The length is the root of the sum of squared
    values: what goes in has length one, whoever's history it is. The root of the dimension d lets
    vectors that begin short, for the scores' sake, move the activation from the first round on.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item tables.
        rating_range: lowest and highest rating, raw units, or None for implicit data.
        task: "ranking" or "rating".
        embedding_dim: width of the hidden layer.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the history that a local epoch leaves out of the input, in [0, 1).
    """

    history_rows: ClassVar = frozenset({"input_embedding.weight"})
    item_rows: ClassVar = history_rows | HistoryRecommender.scored_rows

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
        self.input_embedding = nn.Embedding(num_items, embedding_dim)
        self.hidden_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.item_bias = nn.Embedding(num_items, 1)
        self.rates = task == "rating"
        self.start = middle(rating_range) if self.rates else 0.0
        self.init_std, self.input_dropout = init_std, input_dropout

    def read(self, history: History) -> Tensor:
        """See `HistoryRecommender.read`."""
        value = (history.target - self.start) * history.weight
        squares = history.total_by_user(value.square())
        # Who had nothing, or only ratings in the middle of the range, has no length to divide by.
        inverse = squares.clamp_min(torch.finfo(squares.dtype).tiny).rsqrt() * (squares > 0)
        summed = history.sum_by_user(self.input_embedding.weight, value)
        hidden = summed * inverse * summed.shape[-1] ** 0.5 + self.hidden_bias
        state: Tensor = hidden.sigmoid() if self.rates else hidden.tanh()
        return state
