"""Mult-VAE: a variational autoencoder from a user's history to a score for every item.

Shared: item vectors of the input (means and log variances) and of the output, and all biases.
Personal: none, so users who never trained can be scored.

The latent layer is the only hidden layer; the paper's section 4.5 finds little gain from more.
Train it with `training.loss=softmax`: the multinomial likelihood, normalised over sampled
negatives, because a client holds only the rows that it touches.

Source: Liang et al. 2018, "Variational autoencoders for collaborative filtering", eqs. 2 and 7.
"""

import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.abilities import Regularized
from fedrec_flower.models.base import check_dropout, check_vectors
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.layers import HistoryEmbedding, ItemEmbedding, Normal, Zeros


class MultVAE(HistoryRecommender, Regularized):
    """Latent = mean + noise * standard deviation in training, and the mean in evaluation.

    Mean and log variance are sqrt(d) * sum of input vectors over the history / the square root of
    its length + bias, so every user's input has length one.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        task: "ranking".
        embedding_dim: width d of the latent layer.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the history that a local epoch removes from the input, in [0, 1).
        beta: weight of the KL divergence of a user's latent from the standard normal.
    """

    def __init__(
        self,
        num_users: int,
        num_items: int,
        task: str,
        embedding_dim: int,
        init_std: float,
        input_dropout: float,
        beta: float,
    ) -> None:
        require(task == "ranking", "model=MultVAE cannot predict ratings: choose task=ranking")
        check_vectors(embedding_dim, init_std)
        check_dropout("input_dropout", input_dropout)
        require(beta >= 0, f"model.beta must not be negative: {beta}")
        super().__init__(num_users)
        self.mean_embedding = HistoryEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.mean_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.spread_embedding = HistoryEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.spread_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.input_dropout = input_dropout
        self.beta = beta
        self.noise_dim = embedding_dim

    @property
    @override
    def floats_per_entry(self) -> int:
        # Two tables are read, and both are read again for the regularizer.
        return 4 * super().floats_per_entry

    @override
    def encode_history(self, history: History) -> Tensor:
        mean, log_variance = self._latent(history)
        if history.noise is None:
            return mean
        return mean + history.noise * (log_variance / 2).exp()

    @override
    def regularizer(
        self, users: Tensor, items: Tensor, history: History | None = None
    ) -> Tensor | None:
        """Beta times the KL divergence of the user's latent, divided among the user's samples."""
        del users, items
        if history is None or history.state is None or not self.beta:
            return None
        mean, log_variance = self._latent(history)
        divergence = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1) / 2
        # An epoch reads the share 1 - input_dropout of a user's history on average.
        num_items = history.total_by_user(history.weight)[:, 0] / (1 - self.input_dropout)
        return (self.beta * divergence / num_items.clamp_min(1.0))[history.state]

    def _latent(self, history: History) -> tuple[Tensor, Tensor]:
        """Mean and log variance of each user's latent, float32 (num_users, d) each."""
        count = history.total_by_user(history.weight)
        scale = count.clamp_min(1.0).rsqrt() * self.noise_dim**0.5
        mean = history.sum_by_user(self.mean_embedding.weight, history.weight)
        spread = history.sum_by_user(self.spread_embedding.weight, history.weight)
        return mean * scale + self.mean_bias, spread * scale + self.spread_bias
