"""A view of the shared parameters for every client, made of what clients like it have learnt.

The server sees every client's update by itself, compares what the clients now hold, and gives each
the mean over its neighbours. It keeps one version of the shared parameters per client and sends
each client its own, so a client receives and sends as many bytes as under FedAvg.

What it costs the server, for N clients of F shared values each: 4 N F bytes a version of all, some
seven of which are alive at once (now, next, selected, best on test, on the way), and 4 N^2 F to
6 N^2 F floating point operations a round. ML-100K with 32 dimensions: 7 * 203 MB and, on one core,
2.6 seconds of the 4 that a round of all clients takes.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
Algorithm 1; see `models.gpfedrec`.
"""

from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation import (
    Updates,
    cosine_similarity,
    mean_over_neighbours,
    neighbour_shares,
)
from fedrec_flower.errors import ConfigError, require
from fedrec_flower.models.base import Tensors
from fedrec_flower.strategies.base import FederatedStrategy
from fedrec_flower.strategies.messages import VERSIONS
from fedrec_flower.strategies.plan import Observer, Plan

_ALIVE = 7  # versions of all clients at once: see above
_MEGABYTE = 1_000_000


class UserGraph(FederatedStrategy):
    """Gives every client the mean over the clients most like it.

    Clients outside a cohort get the mean over those of the cohort that are most like them. Clients
    that learnt from nothing are nobody's neighbours.

    Args:
        plan: the run.
        observer: hears of every round.
        aggregation: "all_clients" takes the mean of whole tables (the paper's), "touched_clients"
            divides what a table's row changed by the weight of those neighbours that touched it.
        num_neighbours: neighbours of a client, itself included; None to go by `threshold`.
        threshold: how alike neighbours are at least: a cosine, in [-1, 1], of how they differ from
            the mean over the clients; 0 is the mean similarity, -1 makes all neighbours.
        pull: share of its way from what it was given that a client takes back at every step, in
            [0, 1]: the paper's regularisation (the authors' rates make it 1/2); 0: none.
        memory_budget_mb: megabytes that the server may take for the clients' versions.

    Raises:
        ConfigError: if a value is impossible, or the versions do not fit.
    """

    stacked: ClassVar[bool] = True

    def __init__(
        self,
        plan: Plan,
        observer: Observer,
        aggregation: Literal["all_clients", "touched_clients"],
        num_neighbours: int | None,
        threshold: float,
        pull: float,
        memory_budget_mb: int,
    ) -> None:
        super().__init__(plan, observer, aggregation)
        enough = num_neighbours is None or num_neighbours >= 1
        require(enough, f"strategy.num_neighbours must be at least 1 or null: {num_neighbours}")
        require(-1 <= threshold <= 1, f"strategy.threshold must be in [-1, 1]: {threshold}")
        require(0 <= pull <= 1, f"strategy.pull must be in [0, 1]: {pull}")
        _check_memory(plan, memory_budget_mb)
        self.num_neighbours, self.threshold, self.pull = num_neighbours, threshold, pull

    def local(self) -> dict[str, Any]:
        """See `FederatedStrategy.local`: as under FedProx."""
        return {"_target_": "fedrec_flower.client.methods.Plain", "pull": self.pull}

    def begin(self, initial: Tensors) -> Tensors:
        """See `FederatedStrategy.begin`: a version per client, all alike."""
        count = self.plan.num_clients
        views: dict[str, Any] = {n: np.repeat(v[None], count, 0) for n, v in initial.items()}
        return views | {VERSIONS: np.arange(count)}

    def move_by_each(
        self, parameters: Tensors, updates: Updates, losses: NDArray[np.float64]
    ) -> Tensors:
        """See `FederatedStrategy.move_by_each`."""
        del losses
        tables = self.plan.item_tables
        heard = updates.select(np.flatnonzero(updates.weights > 0), tables)
        similarity = cosine_similarity(parameters, heard, tables, centred=True)
        shares = neighbour_shares(similarity, heard.weights, self.num_neighbours, self.threshold)
        views = mean_over_neighbours(parameters, heard, tables, shares, self.aggregation)
        return self._stepped(parameters, views)

    def step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The clients' new views take the place of the old."""
        del parameters
        return update


def _check_memory(plan: Plan, budget: int) -> None:
    needed = _ALIVE * 4 * plan.num_clients * plan.model.num_shared() / _MEGABYTE
    if needed > budget:
        raise ConfigError(
            f"a version of the shared parameters for each of {plan.num_clients} clients takes the "
            f"server about {needed:.0f} MB, strategy.memory_budget_mb={budget} allows less: raise "
            "it, lower model.embedding_dim or choose strategy=clustered"
        )
