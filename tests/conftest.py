"""Small real objects that many tests share: data, prepared folders, clients, federations."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from fedrec_flower.data.interactions import Interactions, Partition
from fedrec_flower.data.prepare import prepare
from fedrec_flower.data.prepared import ClientData, Columns, Prepared
from fedrec_flower.data.splits.leave_one_out import LeaveOneOut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.helpers.federations import Federate, Meddle

# Tests are small: threads cost more than they bring. Read when PyTorch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# A busy machine is slow, not wrong: no deadline.
settings.register_profile("dev", deadline=None, max_examples=50)
settings.register_profile("ci", deadline=None, max_examples=100, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


# --- data -------------------------------------------------------------------------------------

Histories = Sequence[Sequence[int]]  # the item codes of each user


def _columns(items: Histories, ratings: Sequence[Sequence[float]] | None) -> Columns:
    offsets = np.cumsum([0, *map(len, items)])
    flat = np.array([item for history in items for item in history], np.int32)
    if ratings is None:
        return Columns(offsets, flat, None)
    values = [rating for history in ratings for rating in history]
    return Columns(offsets, flat, np.array(values, np.float32))


class MakeClient(Protocol):
    """Makes the data of one client."""

    def __call__(
        self,
        train: Histories,
        validation: Histories | None = None,
        test: Histories | None = None,
        *,
        ratings: Sequence[Sequence[Sequence[float]]] | None = None,
        attributes: Sequence[Sequence[float]] = (),
        client: int = 0,
    ) -> ClientData:
        """One history per user and part; ratings come per part, in the same shape.

        Attributes, if any, come per user.
        """
        ...


@pytest.fixture(scope="session")
def make_client() -> MakeClient:
    """Make the data of one client from the item codes of each of its users."""

    def make(
        train: Histories,
        validation: Histories | None = None,
        test: Histories | None = None,
        *,
        ratings: Sequence[Sequence[Sequence[float]]] | None = None,
        attributes: Sequence[Sequence[float]] = (),
        client: int = 0,
    ) -> ClientData:
        nothing: Histories = [[] for _ in train]
        parts = (train, validation or nothing, test or nothing)
        values = ratings or (None, None, None)
        columns = [_columns(*pair) for pair in zip(parts, values, strict=True)]
        codes = np.arange(len(train), dtype=np.int32)
        said = np.array(attributes or np.zeros((len(train), 0)), np.float32)
        learnt, chosen_by, judged_by = columns
        return ClientData(client, 1, 0, codes, learnt, chosen_by, judged_by, said)

    return make


@pytest.fixture
def members(make_client: MakeClient) -> list[ClientData]:
    """Clients of several sizes, one with two users, one without training data."""
    histories: dict[int, list[list[int]]] = {
        6: [[3, 8, 1, 12], [8, 20]],
        2: [[0, 9, 4]],
        5: [[]],
        9: [[8, 7, 6, 5, 4, 3, 2]],
    }
    return [
        make_client(
            train,
            ratings=[[[1.0 + item % 5 for item in own] for own in train], *[[[]] * len(train)] * 2],
            attributes=[[0.3 * client, float(user)] for user in range(len(train))],
            client=client,
        )
        for client, train in histories.items()
    ]


@pytest.fixture(scope="session")
def small_data() -> Interactions:
    """Twelve users who each rated 6 to 12 of thirty items, at times of their own."""
    rng = np.random.default_rng(5)
    histories = [rng.choice(30, rng.integers(6, 13), replace=False) for _ in range(12)]
    user = np.repeat(np.arange(12), [len(history) for history in histories])
    return Interactions(
        user=user.astype(np.int32),
        item=np.concatenate(histories).astype(np.int32),
        rating=rng.integers(1, 6, len(user)).astype(np.float32),
        timestamp=rng.permutation(len(user)),
        user_ids=np.arange(12) * 7 + 3,
        item_ids=np.array([f"item {code:02}" for code in range(30)]),
        items=pd.DataFrame({"title": [f"Title {code}" for code in range(30)]}),
        name="small",
    )


class PrepareSmall(Protocol):
    """Prepares the small data for a federation."""

    def __call__(self, client_of_user: Sequence[int] | None = None) -> Prepared:
        """Prepare with one client per user, or with the given client of each user."""
        ...


@pytest.fixture
def prepare_small(small_data: Interactions, tmp_path: Path) -> PrepareSmall:
    """A prepared folder of the small data, split leave-one-out."""

    def make(client_of_user: Sequence[int] | None = None) -> Prepared:
        holder = np.arange(12) if client_of_user is None else np.array(client_of_user)
        partition = Partition(holder.astype(np.int32), np.arange(holder.max() + 1))
        split = LeaveOneOut(1, ties="hash", negatives="honest").split(small_data, seed=0)
        cooked = (small_data, split, partition, "digest", pd.DataFrame())
        return prepare(tmp_path, {"holder": holder.tolist()}, lambda: cooked)

    return make


# --- federations ------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def federate(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Federate]":
    """Run 24 synthetic users, in this process, by the real configuration and strategies."""
    from fedrec_flower.federation.client.node import open_node
    from tests.helpers.federations import Federated, run

    cache = tmp_path_factory.mktemp("cache")  # data are prepared once a session

    def federate(
        *overrides: str, meddle: "Meddle | None" = None, folder: Path | None = None
    ) -> Federated:
        return run(folder or tmp_path_factory.mktemp("federated"), cache, overrides, meddle)

    yield federate
    open_node.cache_clear()  # or open files would outlive their folder
