"""The training data of several clients in flat arrays, one client after another."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.types import Float32Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns, Prepared, ranges, starts


@dataclass(frozen=True, slots=True)
class Cohort:
    """The training data of several clients.

    Attributes:
        clients: int64 (num_clients,), client codes.
        first_users: int64 (num_clients,), number of each client's first user in the data.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        offsets: int64 (num_clients + 1,), where each client's interactions begin.
        user: int64 (n,), the user of each interaction, counted from the cohort's first.
        item: int64 (n,), item codes.
        rating: float32 (n,), raw rating units; None for implicit data.
        known_user: int64 (m,), with `known_item` the pairs that are never drawn as negatives.
        known_item: int64 (m,).
        attributes: float32 (num_users, num_attributes), the users' attributes.
    """

    clients: IndexArray
    first_users: IndexArray
    user_offsets: IndexArray
    offsets: IndexArray
    user: IndexArray
    item: IndexArray
    rating: Float32Array | None
    known_user: IndexArray
    known_item: IndexArray
    attributes: Float32Array

    @classmethod
    def gather(cls, members: Sequence[ClientData], *, spare_held_out: bool) -> "Cohort":
        """Concatenate the data of clients.

        Args:
            members: the clients.
            spare_held_out: whether held-out items count as known and are never drawn as
                negatives. This is the legacy pool, which leaks the held-out items.
        """
        user_offsets = starts([data.num_users for data in members])
        train = [data.train for data in members]
        user, item = _flat(train, user_offsets)
        known = [(user, item)]
        if spare_held_out:
            known.append(_flat([data.validation for data in members], user_offsets))
            known.append(_flat([data.test for data in members], user_offsets))
        ratings = [part.rating for part in train if part.rating is not None]
        return cls(
            clients=np.array([data.client for data in members]),
            first_users=np.array([data.first for data in members]),
            user_offsets=user_offsets,
            offsets=starts([len(data) for data in members]),
            user=user,
            item=item,
            rating=np.concatenate(ratings) if ratings else None,
            known_user=np.concatenate([users for users, _ in known]) if spare_held_out else user,
            known_item=np.concatenate([items for _, items in known]) if spare_held_out else item,
            attributes=np.concatenate([data.attributes for data in members]),
        )

    @classmethod
    def read(cls, data: Prepared, clients: IndexArray, *, spare_held_out: bool) -> "Cohort":
        """Read the data of any clients, without an object per client.

        Args:
            data: reader of the prepared folder.
            clients: int64 (num_clients,), client codes.
            spare_held_out: see `gather`.
        """
        first, stop = data.client_offsets[clients], data.client_offsets[clients + 1]
        users = ranges(first, stop)
        parts = (Part.TRAIN, Part.VALIDATION, Part.TEST)
        train, *held_out = (
            data.part(part).take(users) for part in parts[: 3 if spare_held_out else 1]
        )
        user, item = train.users(), train.item.astype(np.int64)
        user_offsets = starts(stop - first)
        known_user, known_item = user, item
        if held_out:
            known_user = np.concatenate([user, *(part.users() for part in held_out)])
            known_item = np.concatenate([item, *(part.item for part in held_out)])
        return cls(
            clients=clients,
            first_users=first,
            user_offsets=user_offsets,
            offsets=train.offsets[user_offsets],
            user=user,
            item=item,
            rating=train.rating,
            known_user=known_user,
            known_item=known_item,
            attributes=data.attributes[users],
        )

    def __len__(self) -> int:
        """Number of clients."""
        return len(self.clients)

    @property
    def num_users(self) -> int:
        """Number of users over all clients."""
        return int(self.user_offsets[-1])

    @property
    def num_examples(self) -> IndexArray:
        """int64 (num_clients,), training interactions of each client."""
        return np.diff(self.offsets)

    @property
    def history(self) -> Columns:
        """The training interactions of all users, each user's in the order of time."""
        length = np.bincount(self.user, minlength=self.num_users)
        return Columns(starts(length), self.item.astype(np.int32), self.rating)

    @property
    def known(self) -> tuple[IndexArray, IndexArray]:
        """The items that are never drawn as negatives, by user.

        Returns:
            int64 (num_users + 1,), where each user's items begin, and int64 (m,), item codes.
        """
        counts = np.bincount(self.known_user, minlength=self.num_users)
        is_sorted = self.known_user is self.user
        order = slice(None) if is_sorted else np.argsort(self.known_user, kind="stable")
        return starts(counts), self.known_item[order]

    @property
    def place(self) -> IndexArray:
        """int64 (n,): number of earlier items of the same user, for each interaction."""
        return np.arange(len(self.user)) - self.history.offsets[self.user]


def owners(offsets: IndexArray) -> IndexArray:
    """The index of the segment that each element belongs to: int64 (offsets[-1],)."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def _flat(parts: Sequence[Columns], user_offsets: IndexArray) -> tuple[IndexArray, IndexArray]:
    pairs = zip(parts, user_offsets, strict=False)  # one offset more than clients
    user = np.concatenate([part.users() + first for part, first in pairs])
    return user, np.concatenate([part.item for part in parts]).astype(np.int64)
