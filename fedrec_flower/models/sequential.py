"""Models that read a user's items in order of time and score the next item."""

from abc import abstractmethod

from torch import Tensor, cat
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.models.base import check_dropout
from fedrec_flower.models.history import History, HistoryRecommender
from fedrec_flower.models.layers import ItemEmbedding, Normal, Zeros


class SequentialRecommender(HistoryRecommender):
    """State = encoding of the items read so far; see `HistoryRecommender` for the score.

    A sequence is read in windows of `max_length` items; the last window ends with the user's last
    item, and each window is encoded independently. In training, an item is scored from the items
    before it in the window of its predecessor, and its negatives from the same items. In
    evaluation, all items are scored from the last window. Without earlier items, the score is the
    item's bias.

    Args:
        num_users: number of users that are loaded first.
        num_items: rows of the item tables.
        task: "ranking"; the model cannot predict ratings.
        embedding_dim: length of a vector.
        max_length: items per window.
        init_std: standard deviation of the initial vectors.
        input_dropout: share of the items that a local epoch removes from the windows, in [0, 1).
    """

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
        self.item_embedding = ItemEmbedding(num_items, embedding_dim, init=Normal(init_std))
        self.item_bias = ItemEmbedding(num_items, 1, init=Zeros())
        self.window = max_length
        self.input_dropout = input_dropout

    @abstractmethod
    def encode_windows(self, vectors: Tensor, present: Tensor) -> Tensor:
        """Encode windows.

        Args:
            vectors: float32 (num_windows, max_length, d), item vectors; zero for missing items.
            present: float32 (num_windows, max_length), 1, or 0 for padding and dropped items.

        Returns:
            float32 (num_windows, max_length, d): the encoding at each position may depend on the
            items up to this position only.
        """

    @override
    def encode_history(self, history: History) -> Tensor:
        vectors = self.item_embedding(history.item) * history.weight[:, None]
        dim, present = vectors.shape[-1], history.weight.view(-1, self.window)
        states = self.encode_windows(vectors.view(len(present), self.window, dim), present)
        return cat([states.reshape(-1, dim), vectors.new_zeros(1, dim)])
