"""What models read of users' histories, as arrays: one entry per item had, padding, negatives."""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.random import Streams, below, draw, splitmix64_finalize
from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.prepared import Columns, starts


@dataclass(frozen=True, slots=True)
class PaddedHistories:
    """The entries of several users, one user's after another's.

    Attributes:
        offsets: int64 (num_users + 1,), where each user's entries begin.
        user: int64 (m,), the user of each entry, counted from the first.
        item: int64 (m,), item codes.
        target: float32 (m,), raw rating where ratings are read, else 1; 0 for negatives.
        weight: float32 (m,), 1, or 0 for what must not be read.
        length: int64 (num_users,), how many items each user had.
        in_order: whether the entries stand in the order of time.
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
        """Every item had, followed by items that were drawn for it and the user did not have.

        The draws hang on what the user had and on the key: whoever reads the same history again,
        in training or evaluation, draws the same.

        Args:
            history: what the users had.
            num_negatives: how many items are drawn for each; one that the user did have gets no
                weight.
            num_items: size of the catalogue.
            key: 32 bytes of a node's secret; None: anyone who guesses a history can repeat them.
        """
        width, had = 1 + num_negatives, history.item.astype(np.int64)
        length, owner = np.diff(history.offsets), history.users()
        item = np.empty((len(had), width), np.int64)
        weight, target = np.ones_like(item, np.float32), np.zeros_like(item, np.float32)
        item[:, 0], target[:, 0] = had, 1.0 if history.rating is None else history.rating
        if num_negatives:
            drawn = _draw(history, num_negatives, num_items, key)
            item[:, 1:] = drawn
            known = np.isin(owner[:, None] * num_items + drawn, owner * num_items + had)
            weight[:, 1:] = ~known
        columns = (item.reshape(-1), target.reshape(-1), weight.reshape(-1))
        user = np.repeat(owner, width)
        return cls(history.offsets * width, user, *columns, length, in_order=False)

    @classmethod
    def ordered(cls, history: Columns, window: int) -> "PaddedHistories":
        """Rows of `window` entries, in order of time; a user's last item ends their last row.

        Args:
            history: what the users had.
            window: entries in a row; the first row of a user begins with padding, which has no
                weight.
        """
        length = np.diff(history.offsets)
        offsets = starts(-(-length // window) * window)
        user = np.repeat(np.arange(len(length)), np.diff(offsets))
        place = np.arange(len(user)) - (offsets[1:] - length)[user]
        source = history.offsets[user] + np.maximum(place, 0)
        rating = np.ones(len(history.item)) if history.rating is None else history.rating
        return cls(
            offsets,
            user,
            history.item[source].astype(np.int64),
            rating[source].astype(np.float32),
            (place >= 0).astype(np.float32),
            length,
            in_order=True,
        )

    def last(self, user: IndexArray, count: IndexArray) -> IndexArray:
        """The entry that a user has read up to, in order, after some of their items.

        Args:
            user: int64 (n,), users.
            count: int64 (n,), how many items of theirs were read.

        Returns:
            int64 (n,): -1 where nothing was read.
        """
        return np.where(count > 0, self.offsets[user + 1] - 1 - self.length[user] + count, -1)


def take(history: Columns, users: IndexArray, at_most: int | None) -> Columns:
    """The histories of some users, in the order asked.

    Args:
        history: of everybody.
        users: int64 (n,).
        at_most: how many items of each, the latest ones; None for all.
    """
    stop = history.offsets[users + 1]
    length = stop - history.offsets[users]
    length = length if at_most is None else np.minimum(length, at_most)
    offsets = starts(length)
    source = np.arange(offsets[-1]) + np.repeat(stop - offsets[1:], length)
    rating = None if history.rating is None else history.rating[source]
    return Columns(offsets, history.item[source], rating)


def _draw(history: Columns, num_negatives: int, num_items: int, key: bytes | None) -> IndexArray:
    """Items (n, num_negatives) for each of the items had, uniform over the catalogue."""
    owner = history.users()
    had = np.zeros(len(history.offsets) - 1, np.uint64)
    np.add.at(had, owner, splitmix64_finalize(history.item.astype(np.uint64) + np.uint64(1)))
    place = np.arange(len(owner)) - history.offsets[owner]
    counter = place[:, None] * num_negatives + np.arange(num_negatives)
    return below(draw(Streams(splitmix64_finalize(had)[owner, None], key), counter), num_items)
