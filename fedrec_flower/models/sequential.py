"""Models that read a user's items in the order of time and score what comes next."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
from torch import Tensor, cat, nn

from fedrec_flower.core.errors import require
from fedrec_flower.core.types import Float32Array
from fedrec_flower.models.base import check_dropout, normal, xavier_uniform
from fedrec_flower.models.history import History, HistoryRecommender


class SequentialRecommender(HistoryRecommender):
    """State = what the items read so far were encoded to; see `HistoryRecommender` for the score.

    A sequence is read in windows of `max_length` items, the last of which ends with the user's
    last item; no window knows of the one before. In training an item is scored from those that
    came before it in the window of its predecessor, and negatives from the same; in evaluation all
    items are scored from the last window. Before the first item all a score is made of is the
    item's bias.

    Args:
        num_users: how many users are loaded at first.
        num_items: rows of the item tables.
        task: "ranking"; what comes next is no rating.
        embedding_dim: length of a vector.
        max_length: items in a window.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the items that a local epoch leaves out of the windows, in [0, 1).
    """

    history_rows: ClassVar = frozenset({"item_embedding.weight"})
    item_rows: ClassVar = history_rows | HistoryRecommender.scored_rows

    def __init__(
        self,
        num_users: int,
        num_items: int,
        task: str,
        embedding_dim: int,
        max_length: int,
        init_std: float,
        input_dropout: float,
    ) -> None:
        name = type(self).__name__
        require(task == "ranking", f"model={name} cannot predict ratings: choose task=ranking")
        require(embedding_dim >= 1, f"model.embedding_dim must be at least 1: {embedding_dim}")
        require(max_length >= 1, f"model.max_length must be at least 1: {max_length}")
        require(init_std >= 0, f"model.init_std must not be negative: {init_std}")
        check_dropout("input_dropout", input_dropout)
        super().__init__(num_users)
        self.item_embedding = nn.Embedding(num_items, embedding_dim)
        self.item_bias = nn.Embedding(num_items, 1)
        self.window, self.init_std, self.input_dropout = max_length, init_std, input_dropout

    @abstractmethod
    def encode(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Encode windows.

        Args:
            vectors: float32 (num_windows, max_length, d), item vectors; zero where nothing is.
            present: float32 (num_windows, max_length), 1, or 0 for padding and dropped items.

        Returns:
            float32 (num_windows, max_length, d): at each place, of all up to it and none after.
        """

    def read(self, history: History) -> Tensor:
        """See `HistoryRecommender.read`."""
        vectors = self.item_embedding(history.item) * history.weight[:, None]
        dim, present = vectors.shape[-1], history.weight.view(-1, self.window)
        states = self.encode(vectors.view(len(present), self.window, dim), present)
        return cat([states.reshape(-1, dim), vectors.new_zeros(1, dim)])

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal vectors, Xavier weights, zero biases; norms begin by changing no scale."""
        if "embedding" in name:
            return normal(shape, self.init_std, rng)
        if "norm" in name and name.endswith("weight"):
            return np.ones(shape, np.float32)
        if name.endswith("bias") or name == "item_bias.weight":
            return np.zeros(shape, np.float32)
        return xavier_uniform(shape, rng)
