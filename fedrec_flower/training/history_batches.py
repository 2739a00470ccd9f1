"""The histories that models read while clients train: a rectangle with one row per client."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fedrec_flower.core.types import IndexArray
from fedrec_flower.models.history import History
from fedrec_flower.models.ops.history_entries import PaddedHistories
from fedrec_flower.training.cohort import Cohort


@dataclass(frozen=True, slots=True)
class HistoryBatches:
    """The histories of a chunk of clients.

    Attributes:
        entries: the history entries of all users, one client's after another's.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        offsets: int64 (num_clients + 1,), where each client's entries begin.
        epochs: per local epoch the histories of all clients, with a leading axis of clients. Users
            are counted from each client's first user, items are positions among the chunk's
            touched rows. A client with fewer entries than the largest repeats its last entry with
            weight 0. Entries that are dropped out are removed, unless entries are in order.
    """

    entries: PaddedHistories
    user_offsets: IndexArray
    offsets: IndexArray
    epochs: list[History]

    @classmethod
    def lay_out(
        cls,
        entries: PaddedHistories,
        cohort: Cohort,
        row: IndexArray,
        stays: list[NDArray[np.bool_]],
        noise: list[NDArray[np.float32] | None],
    ) -> "HistoryBatches":
        """Lay out the histories of a cohort.

        Args:
            entries: the history entries of the cohort's users.
            cohort: the clients.
            row: int64 (m,), the position of each entry's item among the touched rows.
            stays: per local epoch bool (m,), whether an entry is in the input (dropout).
            noise: per local epoch float32 (num_users, noise_dim), or None.
        """
        offsets = entries.offsets[cohort.user_offsets]
        first_user = cohort.user_offsets[:-1, None]
        user, _ = _rectangle(cohort.user_offsets)
        last = entries.last(user, entries.length[user])
        last = _count_from(last, offsets[:-1, None]) if entries.in_order else user - first_user

        def of_epoch(keep: NDArray[np.bool_], drawn: NDArray[np.float32] | None) -> History:
            weight = entries.weight * keep
            present = np.arange(len(weight)) if entries.in_order else np.flatnonzero(weight)
            place, is_entry = _rectangle(np.searchsorted(present, offsets))
            source = present[place]
            # The padding of a client without entries points at another client's entry.
            has_entries = is_entry.any(1, keepdims=True)
            columns = (
                np.where(has_entries, entries.user[source] - first_user, 0),
                np.where(has_entries, row[source], 0),
                entries.target[source],
                weight[source] * is_entry,
                last,
            )
            user_noise = None if drawn is None else torch.from_numpy(drawn[user])
            return replace(History(*map(torch.from_numpy, columns)), noise=user_noise)

        epochs = [of_epoch(keep, drawn) for keep, drawn in zip(stays, noise, strict=True)]
        return cls(entries, cohort.user_offsets, offsets, epochs)

    def history(
        self,
        epoch: int,
        client: IndexArray,
        user: IndexArray,
        context: IndexArray | None,
        width: int,
    ) -> History:
        """The histories for a batch of samples.

        Args:
            epoch: the local epoch.
            client: int64 (n,), position of each sample's client in the chunk; every client has
                the same number of samples, one client's after another's.
            user: int64 (n,), the sample's user, counted from the chunk's first.
            context: int64 (n,), number of the user's first items that the model may use; None for
                all.
            width: number of items per sample.

        Returns:
            The histories of all clients, with the `state` of each (user, item) pair of the
            clients that have samples.
        """
        if context is None:
            state = user - self.user_offsets[client]
        else:
            state = _count_from(self.entries.last(user, context), self.offsets[client])
        pairs = np.repeat(state, width).reshape(int(client.max()) + 1, -1)
        return replace(self.epochs[epoch], state=torch.from_numpy(pairs))

    def for_users(self, history: History, users: IndexArray) -> History:
        """The histories of some users of one client, so that a step computes no others.

        Args:
            history: the client's, without the axis of clients.
            users: int64 (n,), users counted from the client's first; may repeat.

        Returns:
            A history that scores the pairs of these users as `history` does. The scores of other
            users' pairs are undefined.
        """
        is_wanted = torch.zeros(len(history.last), dtype=torch.bool)
        is_wanted[torch.from_numpy(users)] = True
        chosen = is_wanted[history.user]
        if bool(chosen.all()):
            return history
        last = history.last
        state = history.state
        if self.entries.in_order:  # states are numbered like entries
            place = torch.cat([chosen.cumsum(0) - 1, torch.tensor([-1])])
            last = torch.where(is_wanted, place[last], -1)
            state = None if state is None else place[state]
        return History(
            history.user[chosen],
            history.item[chosen],
            history.target[chosen],
            history.weight[chosen],
            last,
            state,
            history.noise,
        )


def _rectangle(offsets: IndexArray) -> tuple[IndexArray, NDArray[np.bool_]]:
    """The elements of segments as a rectangle (n, longest), and a mask that is False for padding.

    Padding repeats a segment's last element; an empty segment repeats an element of another one.
    """
    size = np.diff(offsets)[:, None]
    column = np.arange(size.max(initial=0))
    place = offsets[:-1, None] + np.minimum(column, np.maximum(size - 1, 0))
    return np.minimum(place, max(int(offsets[-1]) - 1, 0)), column < size


def _count_from(entry: IndexArray, first: IndexArray) -> IndexArray:
    """Entries counted from the client's first; -1 (no entry) stays -1."""
    return np.where(entry < 0, -1, entry - first)
