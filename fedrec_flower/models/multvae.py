"""Mult-VAE: a variational autoencoder from a user's history to a score for every item.

Shared: the item vectors of the input (means and log variances), of the output, and all biases.
Personal: nothing, so users who never trained can be scored as well.

Without hidden layers beside the latent one (the paper's section 4.5 finds little between them).
Train it with `training.loss=softmax`: the multinomial likelihood, normalised over sampled
negatives, for a client holds only the rows it touches.

Source: Liang et al. 2018, "Variational autoencoders for collaborative filtering", eqs. 2 and 7.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import check_dropout, check_vectors
from fedrec_flower.models.history import History, HistoryRecommender


class MultVAE(HistoryRecommender):
    """Latent = mean + noise * standard deviation, both from the history; its mean where one scores.

    Mean and log variance are sqrt(d) * sum of input vectors over the history / its root length +
    bias, so that what goes in has length one, whoever's history it is.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item tables.
        rating_range: not used.
        task: "ranking".
        embedding_dim: width d of the latent layer.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the history that a local epoch leaves out of the input, in [0, 1).
        beta: weight of the divergence of a user's latent from the standard normal.
    """

    history_rows: ClassVar = frozenset({"mean_embedding.weight", "spread_embedding.weight"})
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
        beta: float,
    ) -> None:
        del rating_range
        require(task == "ranking", "model=MultVAE cannot predict ratings: choose task=ranking")
        check_vectors(embedding_dim, init_std)
        check_dropout("input_dropout", input_dropout)
        require(beta >= 0, f"model.beta must not be negative: {beta}")
        super().__init__(num_users)
        self.mean_embedding = nn.Embedding(num_items, embedding_dim)
        self.mean_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.spread_embedding = nn.Embedding(num_items, embedding_dim)
        self.spread_bias = nn.Parameter(torch.zeros(embedding_dim))
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.item_bias = nn.Embedding(num_items, 1)
        self.init_std, self.input_dropout, self.beta = init_std, input_dropout, beta
        self.noise_dim = embedding_dim

    @property
    def floats_per_entry(self) -> int:
        """See `HistoryRecommender.floats_per_entry`; two tables are read, twice over."""
        return 4 * super().floats_per_entry

    def read(self, history: History) -> Tensor:
        """See `HistoryRecommender.read`."""
        mean, log_variance = self._encoded(history)
        if history.noise is None:
            return mean
        return mean + history.noise * (log_variance / 2).exp()

    def penalty(
        self, users: Tensor, items: Tensor, history: History | None = None
    ) -> Tensor | None:
        """See `Recommender.penalty`: beta times the divergence, shared among a user's samples."""
        del users, items
        if history is None or history.state is None or not self.beta:
            return None
        mean, log_variance = self._encoded(history)
        apart = (log_variance.exp() + mean.square() - 1 - log_variance).sum(1) / 2
        # Of what a user has, an epoch reads this share on average.
        had = history.total_by_user(history.weight)[:, 0] / (1 - self.input_dropout)
        return (self.beta * apart / had.clamp_min(1.0))[history.state]

    def _encoded(self, history: History) -> tuple[Tensor, Tensor]:
        """Mean and log variance of each user's latent, float32 (num_users, d) each."""
        count = history.total_by_user(history.weight)
        scale = count.clamp_min(1.0).rsqrt() * self.noise_dim**0.5
        mean = history.sum_by_user(self.mean_embedding.weight, history.weight)
        spread = history.sum_by_user(self.spread_embedding.weight, history.weight)
        return mean * scale + self.mean_bias, spread * scale + self.spread_bias
