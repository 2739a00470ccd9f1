"""A model as attackers of its item rows see it: scores are products of two kinds of rows.

An *item row* is an item's vector and then its bias. A *face* is what a user shows to item rows:
its vector, times the model's weights, and then 1. A score is face . row; what else a model adds
moves no item past another. So the gradient of a score by an item row is the face.

Other rows than were learnt, in the updates of some clients.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.data.prepared import starts
from fedrec_flower.models.abilities import BilinearForm, bilinear_form
from fedrec_flower.models.base import Recommender

Rows = NDArray[np.float32]
Own = Callable[[str, int], Rows]  # a table's name, a client -> the rows of its users


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a model scores.

    Attributes:
        factors: the names of what makes up a score.
    """

    factors: BilinearForm

    @classmethod
    def of(cls, model: Recommender) -> Self:
        """How a model scores.

        Raises:
            ConfigError: if not by products with item vectors that clients send.
        """
        factors = bilinear_form(model)
        if factors is None or factors.item not in {*model.shared_names()} - model.frozen:
            raise ConfigError(
                f"this attack changes item vectors that users' vectors are multiplied with, and "
                f"{type(model).__name__} shares none: choose model=mf, or fake profiles "
                "(attack=random, bandwagon or popular)"
            )
        return cls(factors)

    def rows(self, given: Tensors) -> Rows:
        """float32 (num_items, d + 1): the item rows of shared parameters."""
        vectors = given[self.factors.item]
        bias = given.get(self.factors.item_bias, np.zeros((len(vectors), 1), np.float32))
        return np.concatenate([vectors, bias], axis=1)

    def faces(self, client: int, given: Tensors, own: Own) -> Rows:
        """float32 (num_users, d + 1): what the users of a client show to item rows."""
        vectors = own(self.factors.user, client)
        if self.factors.weight:
            vectors = vectors * given[self.factors.weight]
        return faced(vectors)

    def changes(self, rows: Rows) -> Tensors:
        """Changes of item rows, (n, d + 1), as changes of parameters, (n, ...) each."""
        parts = {self.factors.item: rows[:, :-1], self.factors.item_bias: rows[:, -1:]}
        return {name: change for name, change in parts.items() if name}


def faced(vectors: Rows) -> Rows:
    """Vectors of users, (n, d), with the 1 that meets the bias, (n, d + 1)."""
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class Sent:
    """What a client sends of the tables with a row per item.

    Attributes:
        rows: int64 (n,), item codes, ascending.
        tensors: by the table's name float32 (n, ...); tables that are not named are zero.
    """

    rows: NDArray[np.int64]
    tensors: Tensors

    @classmethod
    def of(cls, updates: Updates, place: int, tables: Collection[str]) -> "Sent":
        """What the client at a place has learnt: views."""
        own = slice(*(int(cut) for cut in updates.offsets[place : place + 2]))
        tensors = {name: v[own] for name, v in updates.tensors.items() if name in tables}
        return Sent(updates.rows[own], tensors)

    def over(self, other: "Sent") -> "Sent":
        """These rows, and those of another that are not among them."""
        rows = np.union1d(self.rows, other.rows)
        tensors = {}
        for name, learnt in other.tensors.items():
            whole = np.zeros((len(rows), *learnt.shape[1:]), np.float32)
            whole[np.searchsorted(rows, other.rows)] = learnt
            whole[np.searchsorted(rows, self.rows)] = self.tensors.get(name, 0)
            tensors[name] = whole
        return Sent(rows, tensors)


def rewritten(updates: Updates, sent: Mapping[int, Sent], tables: Collection[str]) -> Updates:
    """Updates in which some clients send other rows; all else stays as it is, bit for bit.

    Args:
        updates: the updates; left unchanged.
        sent: by a client's place, what it sends instead.
        tables: names of the parameters with a row per item.
    """
    cuts = updates.offsets[1:-1]
    rows = np.split(updates.rows, cuts)
    for place, other in sent.items():
        rows[place] = other.rows
    tensors = dict(updates.tensors)
    for name in tensors.keys() & set(tables):
        pieces = np.split(tensors[name], cuts)
        for place, other in sent.items():
            nothing = np.zeros((len(other.rows), *pieces[place].shape[1:]), np.float32)
            pieces[place] = other.tensors.get(name, nothing)
        tensors[name] = np.concatenate(pieces)
    offsets = starts([len(piece) for piece in rows])
    return replace(updates, offsets=offsets, rows=np.concatenate(rows), tensors=tensors)
