"""The histories that clients read while they train: a rectangle, one row per client."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.models.history import History
from fedrec_flower.models.ops.history_entries import PaddedHistories
from fedrec_flower.training.cohort import Cohort, Index


@dataclass(frozen=True, slots=True)
class Reading:
    """What a chunk of clients reads.

    Attributes:
        entries: of all users, one client's after another's.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        offsets: int64 (num_clients + 1,), where each client's entries begin.
        epochs: per local epoch the histories of all clients, with a leading axis of clients. Users
            are counted from each client's first, items are rows of the chunk's touched rows. A
            client with fewer entries than the largest repeats its last one, with no weight. What
            is not read is not there, unless entries stand in order.
    """

    entries: PaddedHistories
    user_offsets: Index
    offsets: Index
    epochs: list[History]

    @classmethod
    def lay_out(
        cls,
        entries: PaddedHistories,
        cohort: Cohort,
        row: Index,
        kept: list[NDArray[np.bool_]],
        noise: list[NDArray[np.float32] | None],
    ) -> "Reading":
        """Lay out what the cohort's users had.

        Args:
            entries: of these users.
            cohort: the clients.
            row: int64 (m,), the touched row of each entry's item.
            kept: per local epoch bool (m,), which entries are read.
            noise: per local epoch float32 (num_users, noise_dim), or None without.
        """
        offsets, first_user = entries.offsets[cohort.user_offsets], cohort.user_offsets[:-1, None]
        user, _ = _rectangle(cohort.user_offsets)
        last = entries.last(user, entries.length[user])
        last = _within(last, offsets[:-1, None]) if entries.in_order else user - first_user

        def read(keep: NDArray[np.bool_], drawn: NDArray[np.float32] | None) -> History:
            weight = entries.weight * keep
            there = np.arange(len(weight)) if entries.in_order else np.flatnonzero(weight)
            place, real = _rectangle(np.searchsorted(there, offsets))
            source = there[place]
            own = real.any(1, keepdims=True)  # what an empty stretch borrows is not its own
            columns = (
                np.where(own, entries.user[source] - first_user, 0),
                np.where(own, row[source], 0),
                entries.target[source],
                weight[source] * real,
                last,
            )
            noisy = None if drawn is None else torch.from_numpy(drawn[user])
            return replace(History(*map(torch.from_numpy, columns)), noise=noisy)

        epochs = [read(*of_epoch) for of_epoch in zip(kept, noise, strict=True)]
        return cls(entries, cohort.user_offsets, offsets, epochs)

    def history(
        self, epoch: int, client: Index, user: Index, context: Index | None, width: int
    ) -> History:
        """What a batch of samples may read.

        Args:
            epoch: the local epoch.
            client: int64 (n,), place of each sample's client in the chunk: as many of one client
                as of the other, one client's after another's.
            user: int64 (n,), its user, counted from the chunk's first.
            context: int64 (n,), how many of the user's items it may read; None for all.
            width: how many pairs a sample is.

        Returns:
            All clients' histories, with the `state` of each pair of those that have samples.
        """
        if context is None:
            state = user - self.user_offsets[client]
        else:
            state = _within(self.entries.last(user, context), self.offsets[client])
        pairs = np.repeat(state, width).reshape(int(client.max()) + 1, -1)
        return replace(self.epochs[epoch], state=torch.from_numpy(pairs))

    def narrowed(self, history: History, users: Index) -> History:
        """What some users of one client had: a step need not read what nobody's samples ask for.

        Args:
            history: of the client, without the axis of clients.
            users: int64 (n,), users counted from the client's first; may repeat.

        Returns:
            A history that scores the pairs of these users as `history` does; of others it knows
            nothing.
        """
        wanted = torch.zeros(len(history.last), dtype=torch.bool)
        wanted[torch.from_numpy(users)] = True
        there = wanted[history.user]
        if bool(there.all()):
            return history
        last, state = history.last, history.state
        if self.entries.in_order:  # states are numbered like entries
            place = torch.cat([there.cumsum(0) - 1, torch.tensor([-1])])
            last = torch.where(wanted, place[last], -1)
            state = None if state is None else place[state]
        return History(
            history.user[there],
            history.item[there],
            history.target[there],
            history.weight[there],
            last,
            state,
            history.noise,
        )


def _rectangle(offsets: Index) -> tuple[Index, NDArray[np.bool_]]:
    """Elements of stretches, as a rectangle (n, longest), and which are no padding.

    Padding repeats a stretch's last element; an empty stretch borrows one that exists.
    """
    size = np.diff(offsets)[:, None]
    column = np.arange(size.max(initial=0))
    place = offsets[:-1, None] + np.minimum(column, np.maximum(size - 1, 0))
    return np.minimum(place, max(int(offsets[-1]) - 1, 0)), column < size


def _within(entry: Index, first: Index) -> Index:
    """Entries counted from the client's first; -1, nothing, stays."""
    return np.where(entry < 0, -1, entry - first)
