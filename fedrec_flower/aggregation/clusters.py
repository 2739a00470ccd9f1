"""Which clients learn alike: groups of clients by the directions of their updates.

Source: Sattler, Müller and Samek 2021, "Clustered federated learning", section 3: clients of one
population pull the shared parameters in one direction, so cosines of updates tell populations
apart. Groups are those of spherical k-means, here in the few directions in which updates differ
most: in all of them, what single clients have to themselves would hide what groups share.
"""

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.graph import cosine_similarity
from fedrec_flower.aggregation.updates import Updates
from fedrec_flower.aggregation.votes import Shapes

_STARTS = 20  # of k-means, from centres of its own each time; the best end counts


def update_cosines(
    updates: Updates, shapes: Shapes, tables: Collection[str]
) -> NDArray[np.float64]:
    """The cosine of any two clients' updates.

    Args:
        updates: the clients'.
        shapes: full shape of each parameter.
        tables: names of the parameters with a row per item.

    Returns:
        float64 (num_clients, num_clients), in [-1, 1]; 0 for an update of zeros.
    """
    count = len(updates.clients)
    zeros = {n: np.broadcast_to(np.float32(0), (count, *shapes[n])) for n in updates.tensors}
    numbered = replace(updates, clients=np.arange(count))
    return cosine_similarity(zeros, numbered, tables, centred=False)


def spherical_groups(
    cosines: NDArray[np.float64], num_groups: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Group clients whose updates point the same way.

    Args:
        cosines: (n, n), of any two clients' updates; n is at least `num_groups`.
        num_groups: how many groups there are at most.
        rng: picks the centres that k-means starts from.

    Returns:
        int64 (n,), the group of each client, in [0, num_groups); the largest group is the first,
        of equals the one with the earliest client.
    """
    # Imported here: no other strategy needs it.
    from scipy.cluster.vq import kmeans, vq

    values, vectors = np.linalg.eigh(cosines)
    strength = np.sqrt(np.maximum(values[-num_groups:], 0))
    places = vectors[:, -num_groups:] * strength
    centres, _ = kmeans(places, num_groups, iter=_STARTS, rng=rng)
    group, _ = vq(places, centres)
    return _largest_first(group.astype(np.int64))


def nearest_group(cosines: NDArray[np.float64], groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """The group that a client's update resembles most, on average.

    Args:
        cosines: (m, n), of each newcomer's update and each member's.
        groups: int64 (n,), the members' groups, every one from 0 up to the last with a member.

    Returns:
        int64 (m,).
    """
    sizes = np.bincount(groups)
    of_group = np.eye(len(sizes))[groups] / sizes  # (n, num_groups)
    nearest: NDArray[np.int64] = (cosines @ of_group).argmax(axis=1)
    return nearest


def _largest_first(group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number groups by size, then by first member: k-means numbers them by chance."""
    _, first, place, size = np.unique(
        group, return_index=True, return_inverse=True, return_counts=True
    )
    number = np.empty(len(first), np.int64)
    number[np.lexsort((first, -size))] = np.arange(len(first))
    return number[place]
