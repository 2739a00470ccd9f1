"""Other rows than were learnt, in the updates of some clients."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Tensors, Updates
from fedrec_flower.prepared import starts


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
