"""Gradients of a model's scores by item rows, for attacks that change item rows.

An *item row* is an item's vector followed by its bias. A *face* is a user's vector, times the
model's weights, followed by 1. A score is face . row; other terms of a model do not change the
order of the items. The gradient of a score by an item row is therefore the face.

The updates of malicious clients are replaced by such changes.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.types import Float32Array, IndexArray, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import starts
from fedrec_flower.models.abilities import BilinearForm, bilinear_form
from fedrec_flower.models.base import Recommender

Own = Callable[
    [str, int], Float32Array
]  # name of a table, code of a client -> rows of the client's users


@dataclass(frozen=True, slots=True)
class BilinearScores:
    """The bilinear form of a model's scores.

    Attributes:
        factors: names of the parameters in a score.
    """

    factors: BilinearForm

    @classmethod
    def of(cls, model: Recommender) -> Self:
        """The bilinear form of a model.

        Raises:
            ConfigError: if scores are not products with item vectors that clients send.
        """
        factors = bilinear_form(model)
        if factors is None or factors.item not in {*model.shared_names()} - model.frozen:
            raise ConfigError(
                "this attack changes item vectors that are multiplied with users' vectors, and "
                f"{type(model).__name__} shares none: choose model=mf, or fake profiles "
                "(attack=random, bandwagon or popular)"
            )
        return cls(factors)

    def rows(self, given: Tensors) -> Float32Array:
        """float32 (num_items, d + 1): the item rows of shared parameters."""
        vectors = given[self.factors.item]
        bias = given.get(self.factors.item_bias, np.zeros((len(vectors), 1), np.float32))
        return np.concatenate([vectors, bias], axis=1)

    def faces(self, client: int, given: Tensors, own: Own) -> Float32Array:
        """float32 (num_users, d + 1): the faces of a client's users."""
        vectors = own(self.factors.user, client)
        if self.factors.weight:
            vectors = vectors * given[self.factors.weight]
        return faced(vectors)

    def changes(self, rows: Float32Array) -> Tensors:
        """Split changes of item rows, (n, d + 1), into changes of parameters, (n, ...) each."""
        parts = {self.factors.item: rows[:, :-1], self.factors.item_bias: rows[:, -1:]}
        return {name: change for name, change in parts.items() if name}


def faced(vectors: Float32Array) -> Float32Array:
    """Append a 1, which is multiplied with the bias, to user vectors: (n, d) to (n, d + 1)."""
    return np.concatenate([vectors, np.ones((len(vectors), 1), np.float32)], axis=1)


@dataclass(frozen=True, slots=True)
class ItemRows:
    """The item rows that a client sends.

    Attributes:
        rows: int64 (n,), item codes, ascending.
        tensors: float32 (n, ...) by the name of the table; missing tables are zero.
    """

    rows: IndexArray
    tensors: Tensors

    @classmethod
    def of(cls, updates: Updates, place: int, tables: Collection[str]) -> "ItemRows":
        """The item rows in the update of the client at a place, as views."""
        client_rows = slice(int(updates.offsets[place]), int(updates.offsets[place + 1]))
        tensors = {name: v[client_rows] for name, v in updates.tensors.items() if name in tables}
        return ItemRows(updates.rows[client_rows], tensors)

    def over(self, other: "ItemRows") -> "ItemRows":
        """The union of these rows and those of another; these rows replace equal ones."""
        rows = np.union1d(self.rows, other.rows)
        tensors = {}
        for name, values in other.tensors.items():
            merged = np.zeros((len(rows), *values.shape[1:]), np.float32)
            merged[np.searchsorted(rows, other.rows)] = values
            merged[np.searchsorted(rows, self.rows)] = self.tensors.get(name, 0)
            tensors[name] = merged
        return ItemRows(rows, tensors)


def replace_item_rows(
    updates: Updates, sent: Mapping[int, ItemRows], tables: Collection[str]
) -> Updates:
    """Replace the item rows of some clients; all other values are the same, bit for bit.

    Args:
        updates: the updates; not changed.
        sent: the new item rows, by the client's place.
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
            zeros = np.zeros((len(other.rows), *pieces[place].shape[1:]), np.float32)
            pieces[place] = other.tensors.get(name, zeros)
        tensors[name] = np.concatenate(pieces)
    offsets = starts([len(piece) for piece in rows])
    return replace(updates, offsets=offsets, rows=np.concatenate(rows), tensors=tensors)
