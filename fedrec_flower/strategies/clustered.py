"""Clustered federated learning: the server groups clients and trains one shared model per cluster.

Some rounds of common training come first. The updates of the last of them decide the clusters.
From then on each cluster is averaged alone, from the common parameters. A client without an update
in that round joins the cluster that its first later update is most similar to, and receives the
model of the largest cluster until then.

Source: Sattler, Müller and Samek 2021, "Clustered federated learning", section 3: clients of one
population move the shared parameters in one direction, so the cosines of updates separate
populations. Clusters are found by spherical k-means with a given number of clusters instead of
repeated bipartition, in the few directions in which updates differ most: in all directions, the
differences of single clients would hide those of populations.
"""

import logging
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from typing import ClassVar

import numpy as np
from typing_extensions import override

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.ranges import PositiveInt
from fedrec_flower.core.types import Arrays, Float64Array, IndexArray, Shapes, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.aggregators.server_optimizers import ServerOptimizer, with_prefix
from fedrec_flower.strategies.base import (
    VERSIONS,
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
    equal_versions,
)
from fedrec_flower.strategies.user_graph import cosine_similarity

_LOG = logging.getLogger(__name__)

_NO_CLUSTER = -1
_NUM_STARTS = 20  # of k-means, from random centres each time; the best result is taken


class Clustered(FederatedStrategy):
    """Averages each cluster of clients alone, once clusters are found.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        num_clusters: number of clusters; 1 is ordinary training.
        cluster_at: the round whose updates decide the clusters, the last one of common training.
        server_optimizer: the server's optimizer; each cluster has its own copy.

    Raises:
        ConfigError: if a cohort has fewer clients than clusters.
    """

    needs_individual_updates: ClassVar[bool] = True
    models_per_client: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        num_clusters: int,
        cluster_at: PositiveInt,
        server_optimizer: ServerOptimizer,
    ) -> None:
        super().__init__(info, aggregation)
        cohort = info.clients_per_round
        require(
            1 <= num_clusters <= cohort,
            f"strategy.num_clusters={num_clusters} is impossible: choose between 1 and {cohort}, "
            "the clients of a round",
        )
        self.num_clusters = num_clusters
        self.cluster_at = cluster_at
        self._optimizers = [deepcopy(server_optimizer) for _ in range(num_clusters)]
        self._cluster = np.full(info.num_clients, _NO_CLUSTER)
        # The updates that decided the clusters, to compare later clients with.
        self._reference: Updates | None = None

    @override
    def initialize(self, initial: Tensors) -> Tensors:
        """One version per cluster; all clients receive the first."""
        first = np.zeros(self.info.num_clients, np.int64)
        return equal_versions(initial, self.num_clusters, first)

    @override
    def apply_updates(
        self, parameters: Tensors, updates: Updates, losses: Float64Array, round_: RoundInfo
    ) -> Tensors:
        tables = self.info.item_tables
        with_data = updates.select(np.flatnonzero(updates.weights > 0), tables)
        versions = {name: value.copy() for name, value in parameters.items()}
        version_of = parameters[VERSIONS][with_data.clients]
        for version in np.unique(version_of):
            members = with_data.select(np.flatnonzero(version_of == version), tables)
            self._step_version(versions, int(version), members)
        if round_.round >= self.cluster_at:
            if (self._cluster == _NO_CLUSTER).all():
                self._find_clusters(versions, with_data, round_.round)
            self._assign_new_clients(versions, with_data)
            if (self._cluster != _NO_CLUSTER).all():
                self._reference = None  # all clients are assigned; the updates take much memory
        return versions

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """A step of the first cluster."""
        return self._optimizers[0].step(parameters, update)

    @override
    def state(self) -> Tensors:
        """The clusters' optimizer states, the reference updates and the cluster of each client."""
        state: Arrays = {"cluster": self._cluster.copy()}  # assignments change in place
        for number, optimizer in enumerate(self._optimizers):
            moments = optimizer.state()
            state |= {f"optimizer/{number}/{name}": value for name, value in moments.items()}
        if self._reference is not None:
            state |= _to_arrays(self._reference, "reference/")
        return state

    @override
    def restore(self, state: Tensors) -> None:
        self._cluster = state["cluster"].astype(np.int64)
        for number, optimizer in enumerate(self._optimizers):
            optimizer.restore(with_prefix(state, f"optimizer/{number}/"))
        self._reference = _from_arrays(state, "reference/")

    def _step_version(self, versions: Tensors, version: int, members: Updates) -> None:
        """Move one version by the mean update of its clients, in place."""
        before = {name: versions[name][version] for name in members.tensors}
        shapes = {name: value.shape for name, value in before.items()}
        total = UpdateSum.zeros(shapes, self.info.num_items)
        total.add(members, self.info.item_tables)
        after = self._optimizers[version].step(before, self.mean(total))
        for name, value in after.items():
            versions[name][version] = value

    def _find_clusters(self, versions: Tensors, updates: Updates, round_: int) -> None:
        """Cluster the clients; every cluster starts from the common version, in place."""
        cosines = self._cosines(versions, updates)
        rng = generator(self.info.seed, "clusters")
        count = min(self.num_clusters, len(updates.clients))
        self._cluster[updates.clients] = spherical_clusters(cosines, count, rng)
        self._reference = updates
        for name in updates.tensors:
            versions[name][:] = versions[name][0]
        self._optimizers = [deepcopy(self._optimizers[0]) for _ in self._optimizers]
        sizes = np.bincount(self._cluster[updates.clients]).tolist()
        _LOG.info("round %d: clusters of %s clients", round_, ", ".join(map(str, sizes)))

    def _assign_new_clients(self, versions: Tensors, updates: Updates) -> None:
        """Assign clients without a cluster, and set the version that each client receives."""
        reference = self._reference
        new = np.flatnonzero(self._cluster[updates.clients] == _NO_CLUSTER)
        if reference is not None and len(new):
            new_updates = updates.select(new, self.info.item_tables)
            cosines = self._cosines(versions, Updates.joined([new_updates, reference]))
            clusters = self._cluster[reference.clients]
            nearest = assign_to_cluster(cosines[: len(new), len(new) :], clusters)
            self._cluster[new_updates.clients] = nearest
        versions[VERSIONS][:] = np.maximum(self._cluster, 0)

    def _cosines(self, versions: Tensors, updates: Updates) -> Float64Array:
        shapes = {name: versions[name].shape[1:] for name in updates.tensors}
        return update_cosines(updates, shapes, self.info.item_tables)


def update_cosines(updates: Updates, shapes: Shapes, tables: Collection[str]) -> Float64Array:
    """The cosines of all pairs of clients' updates.

    Args:
        updates: the clients' updates.
        shapes: full shape of each parameter.
        tables: names of the parameters with a row per item.

    Returns:
        float64 (num_clients, num_clients), in [-1, 1]; 0 for an update of zeros.
    """
    count = len(updates.clients)
    zeros = {n: np.broadcast_to(np.float32(0), (count, *shapes[n])) for n in updates.tensors}
    numbered = replace(updates, clients=np.arange(count))
    return cosine_similarity(zeros, numbered, tables, centred=False)


def spherical_clusters(
    cosines: Float64Array, num_clusters: int, rng: np.random.Generator
) -> IndexArray:
    """Cluster clients whose updates have similar directions, by spherical k-means.

    Args:
        cosines: (n, n), of all pairs of updates; n is at least `num_clusters`.
        num_clusters: maximum number of clusters.
        rng: draws the initial centres of k-means.

    Returns:
        int64 (n,), the cluster of each client, in [0, num_clusters). The largest cluster is
        number 0; of equal ones, the cluster with the first client.
    """
    # Imported here: no other strategy needs it.
    from scipy.cluster.vq import kmeans, vq

    values, vectors = np.linalg.eigh(cosines)
    scale = np.sqrt(np.maximum(values[-num_clusters:], 0))
    coordinates = vectors[:, -num_clusters:] * scale
    centres, _ = kmeans(coordinates, num_clusters, iter=_NUM_STARTS, rng=rng)
    cluster, _ = vq(coordinates, centres)
    return _number_by_size(cluster.astype(np.int64))


def assign_to_cluster(cosines: Float64Array, clusters: IndexArray) -> IndexArray:
    """The cluster with the largest mean cosine to each new client's update.

    Args:
        cosines: (m, n), of each new client's update to each member's.
        clusters: int64 (n,), the members' clusters, numbered from 0 without gaps.

    Returns:
        int64 (m,).
    """
    sizes = np.bincount(clusters)
    mean_over_members = np.eye(len(sizes))[clusters] / sizes  # (n, num_clusters)
    nearest: IndexArray = (cosines @ mean_over_members).argmax(axis=1)
    return nearest


def _number_by_size(cluster: IndexArray) -> IndexArray:
    """Number clusters by size, then by first member; k-means numbers them at random."""
    _, first, place, size = np.unique(
        cluster, return_index=True, return_inverse=True, return_counts=True
    )
    number = np.empty(len(first), np.int64)
    number[np.lexsort((first, -size))] = np.arange(len(first))
    return number[place]


def _to_arrays(updates: Updates, prefix: str) -> Arrays:
    """Updates as arrays with prefixed names, for a checkpoint."""
    layout: Arrays = {
        "clients": updates.clients,
        "weights": updates.weights,
        "offsets": updates.offsets,
        "rows": updates.rows,
    }
    tensors = {f"tensors/{name}": value for name, value in updates.tensors.items()}
    return {f"{prefix}{name}": value for name, value in (layout | tensors).items()}


def _from_arrays(arrays: Arrays, prefix: str) -> Updates | None:
    """The updates of `_to_arrays`; None if there are none."""
    parts: Arrays = with_prefix(arrays, prefix)
    if not parts:
        return None
    tensors = with_prefix(parts, "tensors/")
    return Updates(parts["clients"], parts["weights"], parts["offsets"], parts["rows"], tensors)
