"""Clients that lie: what they make of their data and updates.

Which clients lie: faults and attacks draw them alike.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.random import generator
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData


def labels_flipped(data: ClientData, num_items: int, rng: np.random.Generator) -> ClientData:
    """The client claims to like items that its users never touched, as many as they did like.

    Ratings stay where they stand, and so go to items that were not rated. A user who touched
    nearly everything keeps as many items as the catalogue lacks others.

    Args:
        data: what the client holds.
        num_items: size of the catalogue.
        rng: draws the items.
    """
    parts = (data.train, data.validation, data.test)
    item = data.train.item.copy()
    for user in range(data.num_users):
        touched = np.concatenate([p.item[p.offsets[user] : p.offsets[user + 1]] for p in parts])
        never = rng.permutation(np.setdiff1d(np.arange(num_items, dtype=item.dtype), touched))
        own = item[data.train.offsets[user] : data.train.offsets[user + 1]]
        own[: len(never)] = never[: len(own)]
    return replace(data, train=replace(data.train, item=item))


def scaled(
    updates: Updates, tables: Collection[str], liars: NDArray[np.bool_], factor: float
) -> Updates:
    """Some clients' updates, multiplied.

    Args:
        updates: the updates; left unchanged.
        tables: names of the parameters with a row per item.
        liars: bool (num_clients,), which clients do so.
        factor: what they multiply by; a negative one also turns the update round.
    """
    each = np.where(liars, np.float32(factor), np.float32(1))
    by_row = each[updates.owners]
    tensors = {}
    for name, value in updates.tensors.items():
        scale = by_row if name in tables else each
        tensors[name] = value * scale.reshape(-1, *[1] * (value.ndim - 1))
    return replace(updates, tensors=tensors)


def drawn_liars(seed: int, num_clients: int, share: float) -> NDArray[np.bool_]:
    """Bool (num_clients,): a fixed share of the clients, rounded, the same in every round.

    Args:
        seed: the experiment's seed.
        num_clients: clients of the federation.
        share: of them, from 0 to 1.
    """
    chosen = generator(seed, "attackers").choice(
        num_clients, round(share * num_clients), replace=False
    )
    found: NDArray[np.bool_] = np.isin(np.arange(num_clients), chosen)
    return found
