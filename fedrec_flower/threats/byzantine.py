"""Byzantine clients: their sampling, flipped labels and scaled updates."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from fedrec_flower.core.random import generator
from fedrec_flower.core.types import BoolArray
from fedrec_flower.core.updates import Updates
from fedrec_flower.data.prepared import ClientData


def labels_flipped(data: ClientData, num_items: int, rng: np.random.Generator) -> ClientData:
    """Replace the training items of each user by items that the user never touched.

    The ratings keep their places, so they are assigned to items that were not rated. If a user has
    more training items than there are untouched items, the rest of the history is unchanged.

    Args:
        data: the client's data; not changed.
        num_items: size of the catalogue.
        rng: draws the items.
    """
    parts = (data.train, data.validation, data.test)
    item = data.train.item.copy()
    for user in range(data.num_users):
        touched = np.concatenate([p.item[p.offsets[user] : p.offsets[user + 1]] for p in parts])
        unseen = rng.permutation(np.setdiff1d(np.arange(num_items, dtype=item.dtype), touched))
        history = item[data.train.offsets[user] : data.train.offsets[user + 1]]  # a view
        history[: len(unseen)] = unseen[: len(history)]
    return replace(data, train=replace(data.train, item=item))


def scaled(
    updates: Updates, tables: Collection[str], malicious: BoolArray, factor: float
) -> Updates:
    """Multiply the updates of malicious clients.

    Args:
        updates: the updates; not changed.
        tables: names of the parameters with a row per item.
        malicious: bool (num_clients,), true for the clients whose updates are multiplied.
        factor: the multiplier; a negative one also reverses the update.
    """
    by_client = np.where(malicious, np.float32(factor), np.float32(1))
    by_row = by_client[updates.owners]
    tensors = {}
    for name, value in updates.tensors.items():
        scale = by_row if name in tables else by_client
        tensors[name] = value * scale.reshape(-1, *[1] * (value.ndim - 1))
    return replace(updates, tensors=tensors)


def sample_byzantine_clients(seed: int, num_clients: int, share: float) -> BoolArray:
    """Sample the malicious clients: a fixed share, rounded, the same in every round.

    Args:
        seed: the experiment's seed.
        num_clients: number of clients of the federation.
        share: share of malicious clients, from 0 to 1.

    Returns:
        bool (num_clients,), true for malicious clients.
    """
    rng = generator(seed, "attackers")
    sampled = rng.choice(num_clients, round(share * num_clients), replace=False)
    is_malicious = np.zeros(num_clients, np.bool_)
    is_malicious[sampled] = True
    return is_malicious
