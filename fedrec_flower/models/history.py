"""Models that score from what a user had, and so need no user vectors."""

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.base import Recommender, normal
from fedrec_flower.models.ops.history_entries import PaddedHistories, take
from fedrec_flower.models.ops.row_products import gather_dot, weighted_scatter_sum

ENTRIES_AT_ONCE = 20_000  # some 5 MB of vectors: what a processor keeps at hand


@dataclass(frozen=True, slots=True)
class History:
    """What the loaded users had, as tensors; see `PaddedHistories` for its layout.

    An engine that trains many clients at once keeps all of theirs in one: every tensor then has a
    leading axis of clients.

    Attributes:
        user: int64 (m,), row of the user who had the item.
        item: int64 (m,), row of the item tables.
        target: float32 (m,), raw rating where ratings are read, else 1; 0 for negatives.
        weight: float32 (m,), 1, or 0 for what must not be read: padding, dropped input.
        last: int64 (num_users,), the state (see `HistoryRecommender.read`) of each user having
            read everything; -1 for the last of all states.
        state: int64 (batch,), the state that each pair is scored from; None for its user's last.
        noise: float32 (num_users, noise_dim), standard normal, while a model that asks for noise
            is trained; else None.
    """

    user: Tensor
    item: Tensor
    target: Tensor
    weight: Tensor
    last: Tensor
    state: Tensor | None = None
    noise: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Those that are there, by name."""
        found = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: tensor for name, tensor in found if tensor is not None}

    def match(self, users: Tensor, table: Tensor) -> Tensor:
        """Products (m,) of entries' rows of a table with those of their users, (num_users, d)."""
        return gather_dot(users, self.user, table, self.item)

    def sum_by_user(self, table: Tensor, weight: Tensor) -> Tensor:
        """Sums (num_users, d) of entries' rows of a table times their weights, (m,)."""
        return weighted_scatter_sum(table, self.item, weight, self.user, len(self.last))

    def total_by_user(self, value: Tensor) -> Tensor:
        """Sums (num_users, 1) of entries' values (m,)."""
        return value.new_zeros(len(self.last)).index_add(0, self.user, value)[:, None]


class HistoryRecommender(Recommender):
    """A recommender that reads what a user had into a state, and scores items from the state.

    Score = state . item vector + item bias + start.

    The history stays on the client; only what is learnt from it, the shared parameters, travels.
    Where no parameter belongs to a user, anybody with a history can be scored, whether they took
    part in training or not. Until `observe` is called everybody's history is empty.

    Args:
        num_users: how many users are loaded at first.

    Attributes:
        history_rows: names of the item tables that are looked up for the items of the history.
        scored_rows: names of those that are looked up for the items to be scored.
        item_embedding: the item vectors that states are compared with.
        item_bias: item biases (num_items, 1).
        init_std: standard deviation of initial vectors.
        start: what every score begins at.
        rates: whether the model predicts ratings, and so reads them.
        window: how many items are read at once where their order matters, else 0.
        input_dropout: share of the entries that a local epoch leaves unread, in [0, 1).
        num_negatives: how many items that the user did not have are read beside each one they
            had, where order does not matter.
        noise_dim: how many normal draws each user gets in a local epoch.
        key: 32 bytes of a node's secret, by which the negatives are drawn.
    """

    history_rows: ClassVar[frozenset[str]]
    scored_rows: ClassVar = frozenset({"item_embedding.weight", "item_bias.weight"})
    item_embedding: nn.Embedding
    item_bias: nn.Embedding
    init_std: float
    start: float = 0.0
    rates: bool = False
    window: int = 0
    input_dropout: float = 0.0
    num_negatives: int = 0
    noise_dim: int = 0
    key: bytes | None = None

    def __init__(self, num_users: int) -> None:
        super().__init__()
        nothing = np.zeros(0, np.int32)
        self._observed = Columns(np.zeros(num_users + 1, np.int64), nothing, None)

    @property
    def floats_per_entry(self) -> int:
        """How many numbers reading one entry activates, about."""
        return 4 * self.item_embedding.embedding_dim

    def initial_value(
        self, name: str, shape: tuple[int, ...], rng: np.random.Generator
    ) -> Float32Array:
        """Normal vectors, zero biases."""
        if name.endswith("embedding.weight"):
            return normal(shape, self.init_std, rng)
        return np.zeros(shape, np.float32)

    @abstractmethod
    def read(self, history: History) -> Tensor:
        """Read what users had.

        Returns:
            float32 (num_states, d): one state per user; where order matters, one per entry,
            having read up to it, and at the end one that has read nothing.
        """

    def observe(self, history: Columns) -> None:
        """See `Recommender.observe`."""
        self._observed = history

    def forward(self, users: Tensor, items: Tensor, history: History | None = None) -> Tensor:
        """See `Recommender.forward`.

        Args:
            users: int64 (batch,), rows of the user tables.
            items: int64 (batch,), rows of the item tables.
            history: what the loaded users had; None for all they were observed to have had.
        """
        history = history or self.whole(self._observed, len(self.item_bias.weight))
        states = self.read(history)
        state = history.last[users] if history.state is None else history.state
        bias: Tensor = self.item_bias(items).squeeze(-1)
        match = gather_dot(states, state % len(states), self.item_embedding.weight, items)
        return match + bias + self.start

    def penalty(
        self, users: Tensor, items: Tensor, history: History | None = None
    ) -> Tensor | None:
        """See `Recommender.penalty`; `history`: as in `forward`."""
        del history
        return super().penalty(users, items)

    def score_all(self, users: Tensor) -> Tensor:
        """See `Recommender.score_all`; reads the histories of a few users at a time."""
        item, bias = self.item_embedding.weight, self.item_bias.weight.squeeze(-1)
        scores = []
        for some in self._slices(users.numpy(force=True)):
            history = self.whole(some, len(item))
            scores.append(self.read(history)[history.last] @ item.T + bias + self.start)
        return torch.cat(scores)

    def entries(self, history: Columns, num_items: int) -> PaddedHistories:
        """What the model reads of histories, items numbered as there, `num_items` in all."""
        if self.window:
            return PaddedHistories.ordered(history, self.window)
        known = history if self.rates else Columns(history.offsets, history.item, None)
        return PaddedHistories.unordered(known, self.num_negatives, num_items, self.key)

    def whole(self, history: Columns, num_items: int) -> History:
        """All there is to read of histories over whole item tables, nothing dropped."""
        entries = self.entries(history, num_items)
        users = np.arange(len(entries.length))
        last = entries.last(users, entries.length) if entries.in_order else users
        columns = (entries.user, entries.item, entries.target, entries.weight, last)
        return History(*map(torch.from_numpy, columns))

    def _slices(self, users: IndexArray) -> Iterator[Columns]:
        """The histories of some users, of as many at a time as memory allows."""
        length = np.diff(self._observed.offsets)[users] * (1 + self.num_negatives) + self.window
        cuts = np.flatnonzero(np.diff(np.cumsum(length) // ENTRIES_AT_ONCE)) + 1
        for some in np.split(users, cuts):
            yield take(self._observed, some, self.window or None)
