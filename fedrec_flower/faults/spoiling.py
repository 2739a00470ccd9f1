"""Replies that break on their way: each function spoils some clients' updates, never in place."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.updates import Updates
from fedrec_flower.faults.none import Odd

ENORMOUS = 1e30  # beyond all that anyone learns or counts, and still a float32

VALUES = {"not_a_number": float("nan"), "infinite": float("inf"), "huge": ENORMOUS}


def overwritten(
    updates: Updates, tables: Collection[str], broken: NDArray[np.bool_], value: float
) -> Updates:
    """Some clients' updates, of one value throughout.

    Args:
        updates: the updates.
        tables: names of the parameters with a row per item.
        broken: bool (num_clients,), which clients' are.
        value: the value.
    """
    tensors = {name: array.copy() for name, array in updates.tensors.items()}
    for name, array in tensors.items():
        array[broken[updates.owners] if name in tables else broken] = value
    return replace(updates, tensors=tensors)


def reweighed(updates: Updates, broken: NDArray[np.bool_]) -> Updates:
    """Some clients' weights, wrong: by the client's code negative, zero or enormous."""
    nothing = np.zeros(len(broken))
    wrong = np.stack([-updates.weights, nothing, nothing + ENORMOUS])
    each = wrong[updates.clients % 3, np.arange(len(broken))]
    return replace(updates, weights=np.where(broken, each, updates.weights))


def misshapen(updates: Updates, place: int, tables: Collection[str]) -> Odd:
    """A client's update with an axis too many."""
    sound = again(updates, place, tables)
    return replace(
        sound,
        tensors={name: np.stack([array, array]) for name, array in sound.tensors.items()},
        again=False,
    )


def again(updates: Updates, place: int, tables: Collection[str]) -> Odd:
    """A client's update, sent another time."""
    one = updates.select(np.array([place]), tables)
    tensors = {name: v if name in tables else v[0] for name, v in one.tensors.items()}
    return Odd(int(one.clients[0]), float(one.weights[0]), tensors, again=True)
