"""The histories that clients read while they train: a rectangle, one row per client."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.models.entries import Entries
from fedrec_flower.models.history import History
from fedrec_flower.training.cohort import Cohort, Index


@dataclass(frozen=True, slots=True)
class Reading:
    """What a chunk of clients reads.

    Attributes:
        entries: of all users, one client's after another's.
        offsets: int64 (num_clients + 1,), where each client's entries begin.
        epochs: per local epoch the histories of all clients, with a leading axis of clients. Users
            are counted from each client's first, items are rows of the chunk's touched rows. A
            client with fewer entries than the largest repeats its last one, with no weight.
    """

    entries: Entries
    offsets: Index
    epochs: list[History]

    @classmethod
    def lay_out(
        cls, entries: Entries, cohort: Cohort, row: Index, kept: list[NDArray[np.bool_]]
    ) -> "Reading":
        """Lay out what the cohort's users had.

        Args:
            entries: of these users.
            cohort: the clients.
            row: int64 (m,), the touched row of each entry's item.
            kept: per local epoch bool (m,), which entries are read.
        """
        offsets = entries.offsets[cohort.user_offsets]
        source, real = _rectangle(offsets)
        user, _ = _rectangle(cohort.user_offsets)
        first_entry, first_user = offsets[:-1, None], cohort.user_offsets[:-1, None]
        last = entries.last(user, entries.length[user])
        last = _within(last, first_entry) if entries.in_order else user - first_user
        columns = (
            entries.user[source] - first_user,
            row[source],
            entries.target[source],
            entries.weight[source],
            last,
        )
        whole = History(*map(torch.from_numpy, columns))
        weights = [whole.weight * torch.from_numpy(real & keep[source]) for keep in kept]
        return cls(entries, offsets, [replace(whole, weight=weight) for weight in weights])

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
            All clients' histories; if there is a context, with the `state` of each pair of those
            clients that have samples.
        """
        if context is None:
            return self.epochs[epoch]
        state = _within(self.entries.last(user, context), self.offsets[client])
        pairs = np.repeat(state, width).reshape(int(client.max()) + 1, -1)
        return replace(self.epochs[epoch], state=torch.from_numpy(pairs))


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
