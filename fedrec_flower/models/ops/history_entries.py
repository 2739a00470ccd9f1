"""Histories as arrays of entries: one per item of the history, plus padding or negatives."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.random import Streams, below, draw, splitmix64_finalize
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.prepared import Columns, starts


@dataclass(frozen=True, slots=True)
class PaddedHistories:
    """The entries of several users, one user after another.

    Attributes:
        offsets: int64 (num_users + 1,), index of each user's first entry.
        user: int64 (m,), the user of each entry, counted from the first.
        item: int64 (m,), item codes.
        target: float32 (m,), raw rating for models that read ratings, else 1; 0 for negatives.
        weight: float32 (m,), 1, or 0 for entries to ignore.
        length: int64 (num_users,), number of items in each user's history.
        in_order: True if the entries are in order of time.
    """

    offsets: IndexArray
    user: IndexArray
    item: IndexArray
    target: Float32Array
    weight: Float32Array
    length: IndexArray
    in_order: bool

    @classmethod
    def unordered(
        cls, history: Columns, num_negatives: int, num_items: int, key: bytes | None = None
    ) -> "PaddedHistories":
        """Each item of a history, followed by negatives that are drawn for it.

        The draws depend on the user's history and on the key only, so training and evaluation
        draw the same negatives for the same history.

        Args:
            history: the users' interactions.
            num_negatives: negatives per item; a drawn item that the user had gets weight 0.
            num_items: size of the catalogue.
            key: 32 bytes of a node's secret; without it, a guessed history is sufficient to
                repeat the draws.
        """
        width = 1 + num_negatives
        positive = history.item.astype(np.int64)
        length, owner = np.diff(history.offsets), history.users()
        item = np.empty((len(positive), width), np.int64)
        target = np.zeros_like(item, np.float32)
        weight = np.ones_like(item, np.float32)
        item[:, 0] = positive
        target[:, 0] = 1.0 if history.rating is None else history.rating
        if num_negatives:
            drawn = _draw_negatives(history, num_negatives, num_items, key)
            item[:, 1:] = drawn
            is_seen = np.isin(owner[:, None] * num_items + drawn, owner * num_items + positive)
            weight[:, 1:] = ~is_seen
        return cls(
            history.offsets * width,
            np.repeat(owner, width),
            item.reshape(-1),
            target.reshape(-1),
            weight.reshape(-1),
            length,
            in_order=False,
        )

    @classmethod
    def ordered(cls, history: Columns, window: int) -> "PaddedHistories":
        """Windows of entries in order of time; a user's last item ends the user's last window.

        Args:
            history: the users' interactions.
            window: entries per window; a user's first window begins with padding of weight 0.
        """
        length = np.diff(history.offsets)
        offsets = starts(-(-length // window) * window)
        user = np.repeat(np.arange(len(length)), np.diff(offsets))
        position = np.arange(len(user)) - (offsets[1:] - length)[user]  # negative for padding
        source = history.offsets[user] + np.maximum(position, 0)
        rating = np.ones(len(history.item)) if history.rating is None else history.rating
        return cls(
            offsets,
            user,
            history.item[source].astype(np.int64),
            rating[source].astype(np.float32),
            (position >= 0).astype(np.float32),
            length,
            in_order=True,
        )

    def last(self, user: IndexArray, count: IndexArray) -> IndexArray:
        """Index of the entry of each user's `count`-th item, for entries in order.

        Args:
            user: int64 (n,), users.
            count: int64 (n,), number of items read.

        Returns:
            int64 (n,): -1 if no item was read.
        """
        return np.where(count > 0, self.offsets[user + 1] - 1 - self.length[user] + count, -1)


def _draw_negatives(
    history: Columns, num_negatives: int, num_items: int, key: bytes | None
) -> IndexArray:
    """Items (n, num_negatives) for each of the n interactions, uniform over the catalogue.

    A user's stream is addressed by the sum of the hashes of the user's items.
    """
    owner = history.users()
    address = np.zeros(len(history.offsets) - 1, np.uint64)
    np.add.at(address, owner, splitmix64_finalize(history.item.astype(np.uint64) + np.uint64(1)))
    position = np.arange(len(owner)) - history.offsets[owner]
    counter = position[:, None] * num_negatives + np.arange(num_negatives)
    return below(draw(Streams(splitmix64_finalize(address)[owner, None], key), counter), num_items)
