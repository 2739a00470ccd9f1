"""The prepared folder: a federation's data as memory-mapped columns, sorted by client and user.

A *position* is a user's place in that order, so the users of a client, and the interactions of a
user, are contiguous. A node opens the folder and touches only the pages of its own clients.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.data.interactions import Ids, Part

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Columns:
    """One part of the split, sorted by position, then time, then item.

    Attributes:
        offsets: int64 (num_users + 1,), where each position's interactions begin.
        item: int32 (n,), item codes.
        rating: float32 (n,), raw rating units; None for implicit data.
    """

    offsets: NDArray[np.int64]
    item: NDArray[np.int32]
    rating: NDArray[np.float32] | None

    def slice(self, start: int, stop: int) -> Self:
        """The interactions of positions [start, stop), offsets counted from zero."""
        offsets = np.asarray(self.offsets[start : stop + 1])
        rows = slice(int(offsets[0]), int(offsets[-1]))
        rating = None if self.rating is None else self.rating[rows]
        return type(self)(offsets - offsets[0], np.asarray(self.item[rows]), rating)

    def mask(self, kept: NDArray[np.bool_]) -> Self:
        """The interactions of the positions that are kept, bool (num_users,); others have none."""
        length = np.diff(self.offsets)
        rows = np.repeat(kept, length)
        rating = None if self.rating is None else self.rating[rows]
        return type(self)(starts(length * kept), self.item[rows], rating)

    def concat(self, later: Self) -> Self:
        """Each position's interactions, and after them those of another part."""
        order = np.argsort(np.concatenate([self.users(), later.users()]), kind="stable")
        rating = None
        if self.rating is not None and later.rating is not None:
            rating = np.concatenate([self.rating, later.rating])[order]
        item = np.concatenate([self.item, later.item])[order]
        return type(self)(self.offsets + later.offsets, item, rating)

    def users(self) -> NDArray[np.int64]:
        """int64 (n,): the position, counted from the slice's first, of each interaction."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class ClientData:
    """What one client holds: its users and their interactions. Never leaves the node.

    Neighbouring clients of a node may be read as one, to be evaluated together.

    Attributes:
        client: the client's code, the first one's of several.
        num_clients: how many clients are read as one.
        first: position of the client's first user.
        user_codes: int32 (num_users,), the user code of each of the client's users.
        train: its training interactions.
        validation: its validation interactions.
        test: its test interactions.
        attributes: float32 (num_users, num_attributes), what its users say of themselves.
    """

    client: int
    num_clients: int
    first: int
    user_codes: NDArray[np.int32]
    train: Columns
    validation: Columns
    test: Columns
    attributes: NDArray[np.float32]

    @property
    def num_users(self) -> int:
        """Number of users this client holds."""
        return len(self.user_codes)

    def users(self, start: int, stop: int) -> Self:
        """Some of its users, [start, stop) counted from its first; `client` stays as it is."""
        train, validation, test = (
            part.slice(start, stop) for part in (self.train, self.validation, self.test)
        )
        codes, attributes = self.user_codes[start:stop], self.attributes[start:stop]
        return replace(
            self,
            first=self.first + start,
            user_codes=codes,
            train=train,
            validation=validation,
            test=test,
            attributes=attributes,
        )

    def after_validation(self) -> Self:
        """The same client once validation is past: all but the test is known."""
        known = self.train.concat(self.validation)
        nothing = self.validation.mask(np.zeros(self.num_users, np.bool_))
        return replace(self, train=known, validation=nothing)

    def without_interactions(self) -> Self:
        """The same users, who have met no item."""
        nobody = np.zeros(self.num_users, np.bool_)
        train, validation, test = (
            part.mask(nobody) for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def __len__(self) -> int:
        """Number of training interactions: the client's weight, `num_examples`."""
        return len(self.train.item)


class Prepared:
    """Reader of a prepared folder.

    Attributes:
        path: the folder.
        num_users: number of users.
        num_items: size of the catalogue.
        num_clients: number of clients.
        rating_range: lowest and highest training rating, raw units; None for implicit data.
        split_sha256: digest of the split, as recorded in every run's summary.
        timed: whether interactions stand in the order of time; if not, in an arbitrary one.
        item_features: float32 (num_items, num_features), public; see `features.item_features`.
        num_attributes: how many numbers say what a user is like; see `features.user_features`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        manifest = json.loads((path / MANIFEST).read_text())
        meta = manifest["meta"]
        self.name: str = meta["name"]
        self.num_users: int = meta["num_users"]
        self.num_items: int = meta["num_items"]
        self.num_clients: int = meta["num_clients"]
        self.rating_range: tuple[float, float] | None = (
            tuple(meta["rating_range"]) if meta["rating_range"] else None
        )
        self.split_sha256: str = meta["split_sha256"]
        self._files: dict[str, str] = manifest["sha256"]
        self.timed: bool = meta["timed"]
        self.client_offsets = self._column("client_offsets")
        self.user_codes = self._column("user_codes")
        self.item_features = self._column("item_features")
        self._attributes = self._column("attributes")
        self.num_attributes: int = self._attributes.shape[1]
        self._parts = {part: self._part(part) for part in Part}

    @property
    def digest(self) -> str:
        """16 hex digits, the same for the same interactions, split, partition and attributes."""
        columns = {name: sha for name, sha in self._files.items() if name.endswith(".npy")}
        return sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()[:16]

    def _column(self, name: str) -> NDArray[Any]:
        # asarray: slicing a plain view of the mapping is many times cheaper than a np.memmap.
        return np.asarray(np.load(self.path / f"{name}.npy", mmap_mode="r"))

    def _part(self, part: Part) -> Columns:
        name = part.name.lower()
        rating = self._column(f"{name}_rating") if self.rating_range else None
        return Columns(self._column(f"{name}_offsets"), self._column(f"{name}_item"), rating)

    def part(self, part: Part) -> Columns:
        """All interactions of one part, every client's."""
        return self._parts[part]

    def client(self, client: int, num_clients: int = 1) -> ClientData:
        """The data of one client, or of neighbouring ones as one; only their pages are read."""
        cuts = self.client_offsets
        first, stop = int(cuts[client]), int(cuts[client + num_clients])
        train, validation, test = (self._parts[part].slice(first, stop) for part in Part)
        codes, attributes = (np.asarray(c[first:stop]) for c in (self.user_codes, self._attributes))
        return ClientData(client, num_clients, first, codes, train, validation, test, attributes)

    @property
    def max_seen_items(self) -> int:
        """How many items the most active user has interacted with, held-out ones included."""
        counts = sum(np.diff(self._parts[part].offsets) for part in Part)
        return int(np.max(counts))

    @property
    def largest_client(self) -> int:
        """The client with the most training interactions."""
        return int(self.num_examples.argmax())

    @property
    def most_examples(self) -> int:
        """Training interactions of the largest client."""
        return int(self.num_examples.max())

    @property
    def most_users(self) -> int:
        """Users of the client that has most."""
        return int(np.diff(self.client_offsets).max())

    @property
    def num_examples(self) -> NDArray[np.int64]:
        """int64 (num_clients,): training interactions of each client."""
        count: NDArray[np.int64] = np.diff(self._parts[Part.TRAIN].offsets[self.client_offsets])
        return count

    def hosted_by(self, node: int, num_nodes: int) -> range:
        """The clients of a node, contiguous, balanced by work; needs num_nodes <= num_clients."""
        examples = np.asarray(self._parts[Part.TRAIN].offsets)[self.client_offsets]
        # A client costs time even when it holds little: about as much as 50 interactions.
        cost = examples + 50 * np.arange(self.num_clients + 1)
        nodes = np.arange(num_nodes + 1)
        cuts = np.searchsorted(cost, np.linspace(0, cost[-1], num_nodes + 1))
        # Every node hosts at least one client.
        cuts = np.maximum.accumulate(cuts - nodes) + nodes
        cuts = np.minimum(cuts, self.num_clients - num_nodes + nodes)
        return range(int(cuts[node]), int(cuts[node + 1]))

    @cached_property
    def user_ids(self) -> Ids:
        """(num_users,), original ids by user code."""
        return self._column("user_ids")

    @cached_property
    def item_ids(self) -> Ids:
        """(num_items,), original ids by item code."""
        return self._column("item_ids")

    @cached_property
    def items(self) -> "pd.DataFrame":
        """One row per item code: title, year, genres where known."""
        import pandas as pd  # here: nodes need no tables

        return pd.read_parquet(self.path / "items.parquet")

    @cached_property
    def clients(self) -> "pd.DataFrame":
        """One row per client: how the data fell, as `partition_table` describes it."""
        import pandas as pd

        return pd.read_parquet(self.path / "clients.parquet")


def starts(sizes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of several stretches begins, and where the last one ends: int64 (n + 1,)."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)
