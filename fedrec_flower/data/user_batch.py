"""The data of any clients of a node, read as one batch of users, to be evaluated together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, Float32Array, IndexArray
from fedrec_flower.data.interactions import Part
from fedrec_flower.data.prepared import ClientData, Columns, Prepared, ranges, starts


@dataclass(frozen=True, slots=True)
class UserBatch:
    """The users of several clients, client after client; the clients need not be neighbours.

    Attributes:
        clients: int64 (num_clients,), client codes, in any order.
        user_offsets: int64 (num_clients + 1,), where each client's users begin in the batch.
        positions: int64 (num_users,), position of each user in the prepared data.
        user_codes: int32 (num_users,), user codes.
        train: their training interactions.
        validation: their validation interactions.
        test: their test interactions.
        attributes: float32 (num_users, num_attributes), encoded attributes.
    """

    clients: IndexArray
    user_offsets: IndexArray
    positions: IndexArray
    user_codes: NDArray[np.int32]
    train: Columns
    validation: Columns
    test: Columns
    attributes: Float32Array

    @classmethod
    def read(cls, data: Prepared, clients: Sequence[int] | IndexArray) -> Self:
        """Read clients from the prepared data; of neighbours in ascending order without a copy."""
        codes = np.asarray(clients, np.int64)
        first, stop = data.client_offsets[codes], data.client_offsets[codes + 1]
        user_offsets = starts(stop - first)
        positions = ranges(first, stop)
        if len(codes) and (np.diff(codes) == 1).all():
            start, end = int(first[0]), int(stop[-1])
            rows: slice | IndexArray = slice(start, end)
            train, validation, test = (data.part(part).slice(start, end) for part in Part)
        else:
            rows = positions
            train, validation, test = (data.part(part).take(positions) for part in Part)
        user_codes, attributes = np.asarray(data.user_codes[rows]), data.attributes[rows]
        return cls(codes, user_offsets, positions, user_codes, train, validation, test, attributes)

    @classmethod
    def of(cls, data: ClientData) -> Self:
        """Return the users of one client."""
        return cls(
            clients=np.array([data.client], np.int64),
            user_offsets=starts([data.num_users]),
            positions=data.first + np.arange(data.num_users),
            user_codes=data.user_codes,
            train=data.train,
            validation=data.validation,
            test=data.test,
            attributes=data.attributes,
        )

    @property
    def num_clients(self) -> int:
        """Number of clients."""
        return len(self.clients)

    @property
    def num_users(self) -> int:
        """Number of users of all clients."""
        return len(self.positions)

    def slice(self, start: int, stop: int) -> Self:
        """Return the clients [start, stop) of the batch."""
        first, end = self.user_offsets[start], self.user_offsets[stop]
        train, validation, test = (
            part.slice(int(first), int(end)) for part in (self.train, self.validation, self.test)
        )
        users = slice(int(first), int(end))
        return type(self)(
            self.clients[start:stop],
            self.user_offsets[start : stop + 1] - first,
            self.positions[users],
            self.user_codes[users],
            train,
            validation,
            test,
            self.attributes[users],
        )

    def after_validation(self) -> Self:
        """Return the same users with their validation interactions moved to the training part."""
        nobody: BoolArray = np.zeros(self.num_users, np.bool_)
        seen = self.train.concat(self.validation)
        return replace(self, train=seen, validation=self.validation.mask(nobody))

    def client_of(self, user: int) -> int:
        """Return the code of the client that holds a user of the batch."""
        return int(self.clients[np.searchsorted(self.user_offsets, user, side="right") - 1])
