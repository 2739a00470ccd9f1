"""Models that score users from their histories and need no user vectors."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor, nn
from typing_extensions import override

from fedrec_flower.core.types import IndexArray
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.abilities import HistoryBased
from fedrec_flower.models.base import Recommender
from fedrec_flower.models.ops.history_entries import PaddedHistories
from fedrec_flower.models.ops.row_products import gather_dot, weighted_scatter_sum

MAX_ENTRIES_PER_BATCH = 20_000  # about 5 MB of vectors, which fit in the processor's cache


@dataclass(frozen=True, slots=True)
class History:
    """Histories of the loaded users as tensors; see `PaddedHistories` for the layout.

    When many clients are trained at once, one object holds the histories of all of them: every
    tensor then has a leading axis of clients.

    Attributes:
        user: int64 (m,), user row of each entry.
        item: int64 (m,), item row of each entry.
        target: float32 (m,), raw rating for models that read ratings, else 1; 0 for negatives.
        weight: float32 (m,), 1, or 0 for entries to ignore: padding and dropped input.
        last: int64 (num_users,), index of each user's final state (see
            `HistoryRecommender.encode_history`); -1 for the last of all states.
        state: int64 (batch,), index of the state that each pair is scored from; None for the
            final state of the pair's user.
        noise: float32 (num_users, noise_dim), standard normal, while a model with `noise_dim` is
            trained; else None.
    """

    user: Tensor
    item: Tensor
    target: Tensor
    weight: Tensor
    last: Tensor
    state: Tensor | None = None
    noise: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are not None, by name."""
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: tensor for name, tensor in values if tensor is not None}

    def match(self, users: Tensor, table: Tensor) -> Tensor:
        """Dot product (m,) of each entry's row of an item table and its user's (num_users, d)."""
        return gather_dot(users, self.user, table, self.item)

    def sum_by_user(self, table: Tensor, weight: Tensor) -> Tensor:
        """Per user, the sum of the entries' rows of an item table times weight (m,).

        Returns:
            float32 (num_users, d).
        """
        return weighted_scatter_sum(table, self.item, weight, self.user, len(self.last))

    def total_by_user(self, value: Tensor) -> Tensor:
        """Per user, the sum of the entries' values (m,), as (num_users, 1)."""
        return value.new_zeros(len(self.last)).index_add(0, self.user, value)[:, None]


class HistoryRecommender(Recommender, HistoryBased):
    """A recommender that encodes a user's history into a state and scores items from the state.

    Score = state . item vector + item bias + score offset.

    The history stays on the client; only the shared parameters are sent. If no parameter belongs
    to a user, every user with a history can be scored, including users who never trained. Until
    `set_history` is called all histories are empty.

    Args:
        num_users: number of users that are loaded first.

    Attributes:
        item_embedding: item vectors that states are compared with.
        item_bias: item biases (num_items, 1).
        score_offset: constant that is added to every score.
        predicts_ratings: True if the model predicts ratings, and so reads them.
        window: items per window for models that read items in order, else 0.
        input_dropout: share of the entries that a local epoch ignores, in [0, 1).
        num_negatives: negatives (items that the user did not have) that are read per item of the
            history, for models that read items without order.
        noise_dim: normal draws per user and local epoch.
        key: 32 bytes of a node's secret, from which the negatives are drawn.
    """

    item_embedding: nn.Embedding
    item_bias: nn.Embedding
    score_offset: float = 0.0
    predicts_ratings: bool = False
    window: int = 0
    input_dropout: float = 0.0
    num_negatives: int = 0
    noise_dim: int = 0
    key: bytes | None = None

    def __init__(self, num_users: int) -> None:
        super().__init__()
        no_items = np.zeros(0, np.int32)
        self._history = Columns(np.zeros(num_users + 1, np.int64), no_items, None)

    @property
    def history_only(self) -> frozenset[str]:
        """Names of the item tables that are looked up for histories alone."""
        return self.ownership.history_only

    @property
    def floats_per_entry(self) -> int:
        """Approximate number of activations, in floats, per entry of a history."""
        return 4 * self.item_embedding.embedding_dim

    @abstractmethod
    def encode_history(self, history: History) -> Tensor:
        """Encode histories into states.

        Returns:
            float32 (num_states, d): one state per user. Models that read items in order return
            one state per entry (after reading up to it), and a final one for an empty history.
        """

    @override
    def set_history(self, history: Columns) -> None:
        self._history = history

    @override
    def forward(self, users: Tensor, items: Tensor, history: History | None = None) -> Tensor:
        """Score pairs.

        Args:
            users: int64 (batch,), rows of the user tables.
            items: int64 (batch,), rows of the item tables.
            history: histories of the loaded users; None for those given to `set_history`.

        Returns:
            float32 (batch,).
        """
        if history is None:
            history = self.full_history(self._history, len(self.item_bias.weight))
        states = self.encode_history(history)
        state = history.last[users] if history.state is None else history.state
        bias: Tensor = self.item_bias(items).squeeze(-1)
        match = gather_dot(states, state % len(states), self.item_embedding.weight, items)
        return match + bias + self.score_offset

    @override
    def score_all(self, users: Tensor) -> Tensor:
        item, bias = self.item_embedding.weight, self.item_bias.weight.squeeze(-1)
        scores = []
        for columns in self._history_batches(users.numpy(force=True)):
            history = self.full_history(columns, len(item))
            states = self.encode_history(history)[history.last]
            scores.append(states @ item.T + bias + self.score_offset)
        return torch.cat(scores)

    def entries(self, history: Columns, num_items: int) -> PaddedHistories:
        """The entries that the model reads of histories over a catalogue of `num_items` items."""
        if self.window:
            return PaddedHistories.ordered(history, self.window)
        if not self.predicts_ratings:
            history = Columns(history.offsets, history.item, None)
        return PaddedHistories.unordered(history, self.num_negatives, num_items, self.key)

    def full_history(self, history: Columns, num_items: int) -> History:
        """All entries of histories over whole item tables, without dropout."""
        entries = self.entries(history, num_items)
        users = np.arange(len(entries.length))
        last = entries.last(users, entries.length) if entries.in_order else users
        columns = (entries.user, entries.item, entries.target, entries.weight, last)
        return History(*map(torch.from_numpy, columns))

    def _history_batches(self, users: IndexArray) -> Iterator[Columns]:
        """The histories of some users, as many at once as `MAX_ENTRIES_PER_BATCH` allows."""
        length = np.diff(self._history.offsets)[users] * (1 + self.num_negatives) + self.window
        cuts = np.flatnonzero(np.diff(np.cumsum(length) // MAX_ENTRIES_PER_BATCH)) + 1
        for batch in np.split(users, cuts):
            yield self._history.take(batch, self.window or None)
