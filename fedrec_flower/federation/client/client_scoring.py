"""Scores of clients that differ in more than rows per user, many clients at a time.

Clients differ in whole parameters if they keep a personal score function or a personal table, if
they score with locally adapted or finetuned parameters, or if they receive versions of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any, Protocol

import numpy as np
import torch

from fedrec_flower.core.types import IndexArray, Tensors
from fedrec_flower.data.user_batch import UserBatch
from fedrec_flower.evaluation.base import Scores
from fedrec_flower.evaluation.scoring import ModelScorer
from fedrec_flower.federation.client.state_store import ClientStore
from fedrec_flower.federation.client.trainers import Trainer
from fedrec_flower.models.abilities import HistoryBased, SideInformation
from fedrec_flower.models.base import Recommender
from fedrec_flower.training.model_versions import Versions

_FLOATS_PER_CHUNK = 1_000_000  # parameters and scores of the clients that are scored at once


@dataclass(frozen=True, slots=True)
class ClientTensors:
    """All parameters of several clients.

    Attributes:
        values: by name. A parameter with a row per user has the rows of all users, client after
            client; a parameter in `per_client` is (num_clients, ...); all clients have any other.
        per_client: names of the parameters that differ between clients, without rows per user.
    """

    values: Tensors
    per_client: frozenset[str]

    @classmethod
    def shared(cls, given: Versions, clients: IndexArray) -> "ClientTensors":
        """Return the shared parameters that clients receive."""
        if given.is_single:
            return cls({name: value[0] for name, value in given.tensors.items()}, frozenset())
        values = {name: given.whole(name, clients) for name in given.tensors}
        return cls(values, frozenset(values))

    def replaced(self, values: Tensors, user_rows: frozenset[str]) -> "ClientTensors":
        """Return these tensors with others for some names, laid out as personal parameters."""
        return ClientTensors(self.values | values, self.per_client | (values.keys() - user_rows))


class ParameterSource(Protocol):
    """Gives the parameters of some clients of a batch."""

    def take(self, start: int, stop: int) -> ClientTensors:
        """Return the parameters of the clients at places [start, stop) of the batch."""
        ...


@dataclass(frozen=True, slots=True)
class StoredParameters:
    """The shared parameters that clients receive, and the personal ones that they store.

    Attributes:
        users: the clients.
        model: the recommender.
        store: personal state of the clients.
        slot: slot of the personal parameters.
        given: the shared parameters.
        trainer: gives parameters that are computed on use; see `Trainer.local_solutions`.
    """

    users: UserBatch
    model: Recommender
    store: ClientStore
    slot: str
    given: Versions
    trainer: Trainer

    def take(self, start: int, stop: int) -> ClientTensors:
        """Return parameters; see `ParameterSource.take`."""
        part = self.users.slice(start, stop)
        tensors = ClientTensors.shared(self.given, part.clients)
        personal = self.store.read(part, self.slot)
        personal |= self.store.read_adapted(part.clients, self.given, self.slot)
        personal |= self.trainer.local_solutions(part)
        return tensors.replaced(personal, self.model.user_rows)


@dataclass(frozen=True, slots=True)
class ClientScorer:
    """Scores clients with parameters of their own, consecutive ones of equal size at once.

    A model that reads histories or attributes scores one client after another. The scores of a
    client may differ in the last bits from those of the client alone: sums have another order.

    Attributes:
        model: the recommender.
        parameters: gives the parameters of the clients of the batch.
    """

    model: Recommender
    parameters: ParameterSource

    def batches(self, data: UserBatch, num_items: int) -> Iterator[tuple[slice, Scores]]:
        """Score users; see `Scorer.batches`."""
        for start, stop in self._chunks(data, num_items):
            first_user = int(data.user_offsets[start])
            tensors = self.parameters.take(start, stop)
            if stop == start + 1:
                self._load_single(tensors)
                part = data.slice(start, stop)
                for users, scores in ModelScorer(self.model).batches(part, num_items):
                    yield slice(first_user + users.start, first_user + users.stop), scores
            else:
                users = slice(first_user, int(data.user_offsets[stop]))
                yield users, self._score_clients(tensors, stop - start, users.stop - users.start)

    def _chunks(self, data: UserBatch, num_items: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of consecutive clients with equally many users."""
        sizes = np.diff(data.user_offsets)
        if isinstance(self.model, HistoryBased | SideInformation):
            yield from ((place, place + 1) for place in range(data.num_clients))
            return
        bounds = [0, *(np.flatnonzero(np.diff(sizes)) + 1).tolist(), data.num_clients]
        for first, last in pairwise(bounds):
            floats = self._floats_per_client(first) + int(sizes[first]) * num_items
            at_once = max(_FLOATS_PER_CHUNK // floats, 1)
            for start in range(first, last, at_once):
                yield start, min(start + at_once, last)

    def _floats_per_client(self, place: int) -> int:
        one = self.parameters.take(place, place + 1)
        return sum(prod(one.values[name].shape) for name in one.per_client)

    def _load_single(self, tensors: ClientTensors) -> None:
        per_client = tensors.per_client
        values = {n: v[0] if n in per_client else v for n, v in tensors.values.items()}
        self.model.load({name: np.ascontiguousarray(value) for name, value in values.items()})

    def _score_clients(self, tensors: ClientTensors, num_clients: int, num_users: int) -> Scores:
        """Score all users, `num_users`, of clients with equally many users."""
        per_client = tensors.per_client | (self.model.user_rows & tensors.values.keys())
        values: dict[str, Any] = {n: torch.from_numpy(v) for n, v in tensors.values.items()}
        for name in self.model.user_rows & values.keys():
            values[name] = values[name].unflatten(0, (num_clients, -1))
        with torch.no_grad():
            scores = self.model.score_clients(values, per_client, num_users // num_clients)
            scores = scores.flatten(0, 1)
        return np.ascontiguousarray(scores.numpy(force=True), np.float32)
