"""Clients in groups that the server finds; one shared model a group.

Some rounds of common training come first. What the clients of the last of them learnt tells who
is alike (see `aggregation.clusters`); from then on each group is averaged by itself, beginning
from what all had in common. A client that had not been heard of by then joins the group that its
first update resembles most, and until then is given the model of the largest group.

Source: Sattler, Müller and Samek 2021, "Clustered federated learning"; groups by k-means with a
number of one's choice instead of repeated bipartition.

Which clients learn alike: groups of clients by the directions of their updates.

Source: Sattler, Müller and Samek 2021, "Clustered federated learning", section 3: clients of one
population pull the shared parameters in one direction, so cosines of updates tell populations
apart. Groups are those of spherical k-means, here in the few directions in which updates differ
most: in all of them, what single clients have to themselves would hide what groups share.
"""

import logging
from collections.abc import Collection
from copy import deepcopy
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import require
from fedrec_flower.core.random import generator
from fedrec_flower.core.types import Shapes, Tensors
from fedrec_flower.core.updates import Updates, UpdateSum
from fedrec_flower.strategies.aggregators.server_optimizers import Moments
from fedrec_flower.strategies.base import (
    VERSIONS,
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
)
from fedrec_flower.strategies.fedopt import ServerOptimizer, chosen, under
from fedrec_flower.strategies.user_graph import cosine_similarity

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


_LOG = logging.getLogger(__name__)
_NOWHERE = -1  # the group of a client that has not been placed


class Clustered(FederatedStrategy):
    """Averages each group of clients by itself, once there are groups.

    Args:
        info: facts of the run.
        aggregation: see `FederatedStrategy`.
        num_clusters: groups to find; 1 is ordinary training.
        cluster_at: the round whose updates decide, the last one of common training.
        server_optimizer: how the server steps, named as the strategy that averages and steps so.
        server_learning_rate: its learning rate.
        beta1: decay of its first moment, momentum of "fedavgm", in [0, 1).
        beta2: decay of its second moment, in [0, 1).
        tau: floor of its denominator, in units of the parameters.

    Raises:
        ConfigError: if a value is impossible.
    """

    needs_individual_updates: ClassVar[bool] = True
    models_per_client: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        num_clusters: int,
        cluster_at: int,
        server_optimizer: ServerOptimizer,
        server_learning_rate: float,
        beta1: float,
        beta2: float,
        tau: float,
    ) -> None:
        super().__init__(info, aggregation)
        most = info.clients_per_round
        require(
            1 <= num_clusters <= most,
            f"strategy.num_clusters={num_clusters} is impossible: choose between 1 and {most}, "
            "the clients of a round",
        )
        require(cluster_at >= 1, f"strategy.cluster_at must be at least 1: {cluster_at}")
        self.num_clusters, self.cluster_at = num_clusters, cluster_at
        self._step = chosen(server_optimizer, server_learning_rate, beta1, beta2, tau)
        self._moments = [Moments() for _ in range(num_clusters)]
        self._founders: Updates | None = None
        self._group = np.full(info.num_clients, _NOWHERE)

    def initialize(self, initial: Tensors) -> Tensors:
        """See `FederatedStrategy.initialize`: a version per group; all are given the first."""
        versions = {n: np.repeat(v[None], self.num_clusters, 0) for n, v in initial.items()}
        return versions | {VERSIONS: np.zeros(self.info.num_clients, np.int64)}

    def apply_updates(
        self,
        parameters: Tensors,
        updates: Updates,
        losses: NDArray[np.float64],
        round_: RoundInfo,
    ) -> Tensors:
        """See `FederatedStrategy.apply_updates`."""
        del losses
        tables = self.info.item_tables
        heard = updates.select(np.flatnonzero(updates.weights > 0), tables)
        versions = {name: value.copy() for name, value in parameters.items()}
        given = parameters[VERSIONS][heard.clients]
        for group in np.unique(given):
            members = heard.select(np.flatnonzero(given == group), tables)
            self._move_group(versions, int(group), members)
        if round_.round >= self.cluster_at:
            if (self._group == _NOWHERE).all():
                self._found(versions, heard, round_.round)
            self._place(versions, heard)
            if (self._group != _NOWHERE).all():
                self._founders = None  # whole updates: nobody is left to be compared with them
        return versions

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """See `FederatedStrategy.server_step`; of the first group."""
        return self._step(parameters, update, self._moments[0])

    def state(self) -> Tensors:
        """See `FederatedStrategy.state`: each group's moments, the founders and who is where."""
        kept: dict[str, Any] = {"group": self._group}
        for place, moments in enumerate(self._moments):
            kept |= {f"moments/{place}/{name}": v for name, v in moments.arrays().items()}
        if self._founders is not None:
            of = self._founders
            layout = {"clients": of.clients, "weights": of.weights, "rows": of.rows}
            layout |= {"offsets": of.offsets}
            kept |= {f"founders/{name}": value for name, value in layout.items()}
            kept |= {f"founded/{name}": value for name, value in of.tensors.items()}
        return kept

    def restore(self, state: Tensors) -> None:
        """See `FederatedStrategy.restore`."""
        self._group = state["group"].astype(np.int64)
        for place, moments in enumerate(self._moments):
            moments.restore(under(state, f"moments/{place}/"))
        layout: dict[str, Any] = dict(under(state, "founders/"))
        self._founders = Updates(**layout, tensors=under(state, "founded/")) if layout else None

    def _move_group(self, versions: Tensors, group: int, members: Updates) -> None:
        """Step the version of one group, in place, by the mean over its members."""
        given = {name: versions[name][group] for name in members.tensors}
        total = UpdateSum.zeros({n: v.shape for n, v in given.items()}, self.info.num_items)
        total.add(members, self.info.item_tables)
        moved = self._step(given, self.mean(total), self._moments[group])
        for name, value in moved.items():
            versions[name][group] = value

    def _found(self, versions: Tensors, founders: Updates, round_: int) -> None:
        """Group those heard; every group begins from what all had in common, in place."""
        cosines = self._cosines(founders, _shapes(versions))
        rng = generator(self.info.seed, "clusters")
        count = min(self.num_clusters, len(founders.clients))
        self._group[founders.clients] = spherical_groups(cosines, count, rng)
        self._founders = founders
        for name in founders.tensors:
            versions[name][:] = versions[name][0]
        self._moments = [deepcopy(self._moments[0]) for _ in self._moments]
        sizes = np.bincount(self._group[founders.clients]).tolist()
        _LOG.info("round %d: groups of %s clients", round_, ", ".join(map(str, sizes)))

    def _place(self, versions: Tensors, heard: Updates) -> None:
        """Let newcomers join the group they resemble, and all be given their group's version."""
        founders = self._founders
        new = np.flatnonzero(self._group[heard.clients] == _NOWHERE)
        if founders is not None and len(new):
            newcomers = heard.select(new, self.info.item_tables)
            cosines = self._cosines(Updates.joined([newcomers, founders]), _shapes(versions))
            groups = self._group[founders.clients]
            joined = nearest_group(cosines[: len(new), len(new) :], groups)
            self._group[newcomers.clients] = joined
        versions[VERSIONS][:] = np.maximum(self._group, 0)

    def _cosines(self, updates: Updates, shapes: Shapes) -> NDArray[np.float64]:
        return update_cosines(updates, shapes, self.info.item_tables)


def _shapes(versions: Tensors) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter, without the axis of versions."""
    return {name: value.shape[1:] for name, value in versions.items() if name != VERSIONS}
