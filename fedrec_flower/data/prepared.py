"""The prepared dataset: memory-mapped columns, sorted by client and user.

A *position* is the index of a user in that order. The users of a client are contiguous, and so are
the interactions of a user. A node opens the folder and reads only the pages of its own clients.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, IndexArray
from fedrec_flower.data.interactions import Ids, Part

if TYPE_CHECKING:
    import pandas as pd

MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Columns:
    """One part of the split, sorted by position, then time; equal times by `tie_hash`.

    Attributes:
        offsets: int64 (num_users + 1,), the row of each position's first interaction.
        item: int32 (n,), item codes.
        rating: float32 (n,), raw rating units; None for implicit data.
    """

    offsets: IndexArray
    item: NDArray[np.int32]
    rating: NDArray[np.float32] | None

    def slice(self, start: int, stop: int) -> Self:
        """The interactions of positions [start, stop); the offsets start at zero."""
        offsets = np.asarray(self.offsets[start : stop + 1])
        rows = slice(int(offsets[0]), int(offsets[-1]))
        rating = None if self.rating is None else self.rating[rows]
        return type(self)(offsets - offsets[0], np.asarray(self.item[rows]), rating)

    def take(self, positions: IndexArray, max_items: int | None = None) -> Self:
        """The interactions of some positions, in the given order.

        Args:
            positions: int64 (n,), positions or rows of the slice; may repeat.
            max_items: number of interactions to keep of each position, the latest ones; None for
                all.
        """
        length = self.offsets[positions + 1] - self.offsets[positions]
        if max_items is not None:
            length = np.minimum(length, max_items)
        rows = self.rows_of(positions, max_items)
        rating = None if self.rating is None else self.rating[rows]
        return type(self)(starts(length), self.item[rows], rating)

    def rows_of(self, positions: IndexArray, max_items: int | None = None) -> IndexArray:
        """int64 (m,): the rows of the interactions of some positions; arguments as of `take`."""
        first, stop = self.offsets[positions], self.offsets[positions + 1]
        if max_items is not None:
            first = np.maximum(first, stop - max_items)
        return ranges(first, stop)

    def mask(self, selected: BoolArray) -> Self:
        """Keep the interactions of the selected positions.

        Args:
            selected: bool (num_users,); positions that are not selected have no interactions.
        """
        length = np.diff(self.offsets)
        rows = np.repeat(selected, length)
        rating = None if self.rating is None else self.rating[rows]
        return type(self)(starts(np.where(selected, length, 0)), self.item[rows], rating)

    def concat(self, later: Self) -> Self:
        """Append the interactions of another part to those of each position."""
        order = np.argsort(np.concatenate([self.users(), later.users()]), kind="stable")
        rating = None
        if self.rating is not None and later.rating is not None:
            rating = np.concatenate([self.rating, later.rating])[order]
        item = np.concatenate([self.item, later.item])[order]
        return type(self)(self.offsets + later.offsets, item, rating)

    def users(self) -> IndexArray:
        """int64 (n,): the position of each interaction, relative to the first of the slice."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))


@dataclass(frozen=True, slots=True)
class ClientData:
    """The private data of one client: its users and their interactions. It stays on the node.

    Several consecutive clients of a node can be read as one, to be evaluated together.

    Attributes:
        client: the code of the client, or of the first of several clients.
        num_clients: number of clients that are read as one.
        first: position of the client's first user.
        user_codes: int32 (num_users,), the user code of each of the client's users.
        train: its training interactions.
        validation: its validation interactions.
        test: its test interactions.
        attributes: float32 (num_users, num_attributes), the encoded attributes of its users.
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
        """The users [start, stop), relative to the client's first user; `client` is unchanged."""
        train, validation, test = (
            part.slice(start, stop) for part in (self.train, self.validation, self.test)
        )
        return replace(
            self,
            first=self.first + start,
            user_codes=self.user_codes[start:stop],
            train=train,
            validation=validation,
            test=test,
            attributes=self.attributes[start:stop],
        )

    def without_interactions(self) -> Self:
        """The same users without any interaction."""
        no_users = np.zeros(self.num_users, np.bool_)
        train, validation, test = (
            part.mask(no_users) for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    def __len__(self) -> int:
        """Number of training interactions: the weight `num_examples` of the client."""
        return len(self.train.item)


@dataclass(frozen=True, slots=True, eq=False)
class DatasetInfo:
    """The facts on the data that models and evaluators are built from.

    Attributes:
        num_items: size of the catalogue.
        rating_range: lowest and highest training rating, raw units; None for implicit data.
        item_features: float32 (num_items, num_features), public.
        num_attributes: number of attributes of a user.
    """

    num_items: int
    rating_range: tuple[float, float] | None
    item_features: NDArray[np.float32]
    num_attributes: int

    def as_arguments(self) -> dict[str, Any]:
        """Return the facts by name, as constructors take them."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


class Prepared:
    """Reader of a prepared folder.

    Attributes:
        path: the folder.
        num_users: number of users.
        num_items: size of the catalogue.
        num_clients: number of clients.
        rating_range: lowest and highest training rating, raw units; None for implicit data.
        split_sha256: digest of the split, as in the summary of each run.
        timed: whether the interactions are sorted by time; otherwise their order is arbitrary.
        item_features: float32 (num_items, num_features), public; see `features.item_features`.
        attributes: float32 (num_users, num_attributes), by position; see `features.user_features`.
        num_attributes: number of user attributes.
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
        self.attributes = self._column("attributes")
        self.num_attributes: int = self.attributes.shape[1]
        self._parts = {part: self._part(part) for part in Part}

    @property
    def digest(self) -> str:
        """16 hexadecimal digits, equal for equal interactions, split, partition and attributes."""
        columns = {name: sha for name, sha in self._files.items() if name.endswith(".npy")}
        return sha256(json.dumps(columns, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def info(self) -> DatasetInfo:
        """The facts on the data that models and evaluators are built from."""
        return DatasetInfo(
            self.num_items, self.rating_range, self.item_features, self.num_attributes
        )

    def _column(self, name: str) -> NDArray[Any]:
        # asarray: slicing a plain view of the mapping is much cheaper than slicing a np.memmap.
        return np.asarray(np.load(self.path / f"{name}.npy", mmap_mode="r"))

    def _part(self, part: Part) -> Columns:
        name = part.name.lower()
        rating = self._column(f"{name}_rating") if self.rating_range else None
        return Columns(self._column(f"{name}_offsets"), self._column(f"{name}_item"), rating)

    def part(self, part: Part) -> Columns:
        """All interactions of one part, of all clients."""
        return self._parts[part]

    def client(self, client: int, num_clients: int = 1) -> ClientData:
        """The data of one client, or of several consecutive clients; only their pages are read."""
        first = int(self.client_offsets[client])
        stop = int(self.client_offsets[client + num_clients])
        train, validation, test = (self._parts[part].slice(first, stop) for part in Part)
        codes = np.asarray(self.user_codes[first:stop])
        attributes = np.asarray(self.attributes[first:stop])
        return ClientData(client, num_clients, first, codes, train, validation, test, attributes)

    @property
    def max_seen_items(self) -> int:
        """Number of items of the most active user, including held-out items."""
        counts = sum(np.diff(self._parts[part].offsets) for part in Part)
        return int(np.max(counts))

    @property
    def largest_client(self) -> int:
        """Code of the client with the most training interactions."""
        return int(self.num_examples.argmax())

    @property
    def most_examples(self) -> int:
        """Number of training interactions of the largest client."""
        return int(self.num_examples.max())

    @property
    def most_users(self) -> int:
        """Number of users of the client with the most users."""
        return int(np.diff(self.client_offsets).max())

    @property
    def num_examples(self) -> IndexArray:
        """int64 (num_clients,): number of training interactions of each client."""
        count: IndexArray = np.diff(self._parts[Part.TRAIN].offsets[self.client_offsets])
        return count

    def hosted_by(self, node: int, num_nodes: int) -> range:
        """The clients of a node: contiguous and balanced by work; num_nodes <= num_clients."""
        examples = np.asarray(self._parts[Part.TRAIN].offsets)[self.client_offsets]
        # Each client has a fixed cost, about that of 50 interactions.
        cost = examples + 50 * np.arange(self.num_clients + 1)
        nodes = np.arange(num_nodes + 1)
        cuts = np.searchsorted(cost, np.linspace(0, cost[-1], num_nodes + 1))
        # Each node hosts at least one client.
        cuts = np.maximum.accumulate(cuts - nodes) + nodes
        cuts = np.minimum(cuts, self.num_clients - num_nodes + nodes)
        return range(int(cuts[node]), int(cuts[node + 1]))

    @cached_property
    def user_ids(self) -> Ids:
        """(num_users,), the original id of each user code."""
        return self._column("user_ids")

    @cached_property
    def item_ids(self) -> Ids:
        """(num_items,), the original id of each item code."""
        return self._column("item_ids")

    @cached_property
    def items(self) -> "pd.DataFrame":
        """One row per item code: title, year, genres where known."""
        import pandas as pd  # imported here: nodes do not need pandas

        return pd.read_parquet(self.path / "items.parquet")

    @cached_property
    def clients(self) -> "pd.DataFrame":
        """One row per client, from `partition_table`."""
        import pandas as pd

        return pd.read_parquet(self.path / "clients.parquet")


def starts(sizes: Sequence[int] | IndexArray) -> IndexArray:
    """Offsets of consecutive segments of the given sizes, and the end: int64 (n + 1,)."""
    return np.concatenate([[0], np.cumsum(np.asarray(sizes, np.int64))]).astype(np.int64)


def ranges(first: IndexArray, stop: IndexArray) -> IndexArray:
    """Concatenate the integers [first, stop) of several ranges: int64 ((stop - first).sum(),)."""
    offsets = starts(stop - first)
    numbers: IndexArray = np.arange(offsets[-1]) + np.repeat(first - offsets[:-1], stop - first)
    return numbers
