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

Clients as nodes of a graph: who is like whom, and the mean over each one's neighbours.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
section 4.2. The authors' code takes the cosine *distance* for a similarity, so that its neighbours
are the clients least alike; here they are those most alike. And whole tables are alike for what
all of them have in common, so that whoever moved least would be like everyone; therefore the mean
over the clients is taken away before they are compared, and the mean similarity is zero.

What all clients hold is one array with an axis of clients in front. It is worked through in pieces,
so that beside it and the result there is never more than a few pieces.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.errors import ConfigError, require
from fedrec_flower.core.types import Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.aggregators.robust import PerRow
from fedrec_flower.strategies.base import (
    VERSIONS,
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
)
from fedrec_flower.strategies.client_updates import Plain

_FLOATS_AT_ONCE = 1 << 23  # of a piece: 32 MB
_ROUNDING = 1e-6  # of a cosine: clients that are alike must not be parted by float32
_NOTHING = 1e-10  # of a squared length: what a difference of equals leaves


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some columns of what the clients hold.

    Attributes:
        name: of the parameter.
        place: its rows; all of them unless it has a row per item.
        given: float32 (num_clients, width), what each client was given.
        change: float32 (num_members, width), what training made of it; zero where untouched.
        touched: float32 (num_members, num_rows), one where a member touched a row; None for a
            parameter without a row per item.
    """

    name: str
    place: slice
    given: NDArray[np.float32]
    change: NDArray[np.float32]
    touched: NDArray[np.float32] | None


def cosine_similarity(
    given: Tensors, updates: Updates, tables: Collection[str], *, centred: bool
) -> NDArray[np.float64]:
    """How much what each client holds resembles what each member of the cohort holds.

    A member holds what it was given and what its training changed, others what they were given.

    Args:
        given: by name float32 (num_clients, ...), what each client was given.
        updates: the members'.
        tables: names of the parameters with a row per item.
        centred: whether to compare how clients differ from the mean over all of them.

    Returns:
        float64 (num_clients, num_members), the cosines, in [-1, 1]; 0 for who holds zeros, or
        nothing but the mean.
    """
    members, num_clients = updates.clients, len(next(iter(given.values())))
    gram = np.zeros((num_clients, len(members)))
    squares, before = np.zeros(num_clients), np.zeros(num_clients)
    for piece in _pieces(given, updates, tables):
        held = piece.given.copy()
        held[members] += piece.change
        before += np.einsum("ij,ij->i", held, held)
        if centred:
            held -= held.mean(axis=0)
        everyone = len(members) == num_clients
        gram += held @ held.T if everyone else held @ held[members].T
        squares += np.einsum("ij,ij->i", held, held)
    something = squares > _NOTHING * before
    scale = np.where(something, 1 / np.sqrt(np.where(something, squares, 1)), 0)
    cosines: NDArray[np.float64] = gram * np.outer(scale, scale[members])
    return np.clip(cosines, -1.0, 1.0)


def neighbour_shares(
    similarity: NDArray[np.float64],
    weights: NDArray[np.float64],
    num_neighbours: int | None,
    threshold: float,
) -> NDArray[np.float32]:
    """Who listens to whom, and how much.

    A client's neighbours are the members most like it, or those at least as like it as the
    threshold; the most alike (of a member: itself) is one in any case.

    Args:
        similarity: (num_clients, num_members).
        weights: float64 (num_members,), positive; neighbours share in proportion to them.
        num_neighbours: how many there are; None to go by the threshold.
        threshold: a cosine.

    Returns:
        float32 (num_clients, num_members): rows sum to one.
    """
    if num_neighbours is None:
        most = similarity.max(axis=1, keepdims=True)
        limit = np.minimum(threshold, most)
        listens = similarity >= limit - _ROUNDING
    else:
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :num_neighbours]
        listens = np.zeros(similarity.shape, np.bool_)
        np.put_along_axis(listens, nearest, values=True, axis=1)
    shares = listens * weights
    normal: NDArray[np.float32] = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


def mean_over_neighbours(
    given: Tensors,
    updates: Updates,
    tables: Collection[str],
    shares: NDArray[np.float32],
    per_row: PerRow,
) -> Tensors:
    """What each client is given next: the mean of what its neighbours hold.

    Args:
        given: by name float32 (num_clients, ...), what each client was given.
        updates: the members'.
        tables: names of the parameters with a row per item.
        shares: (num_clients, num_members), rows sum to one.
        per_row: "all_clients" takes the mean of whole tables (the paper's); "touched_clients"
            adds to the mean of what neighbours were given, row by row, the mean of what those
            among them who touched the row changed.

    Returns:
        By name of each parameter that is sent, an array like the given one. Where all listen to
        all, and were given the same, it is FedAvg's.
    """
    views = {name: np.empty_like(given[name]) for name in updates.tensors}
    for piece in _pieces(given, updates, tables):
        before = piece.given[updates.clients]
        if piece.touched is None or per_row == "all_clients":
            view = shares @ (before + piece.change)
        else:
            heard = shares @ piece.touched
            moved = (shares @ piece.change).reshape(*heard.shape, -1)
            moved /= np.where(heard > 0, heard, 1)[:, :, np.newaxis]
            view = shares @ before + moved.reshape(len(moved), -1)
        whole = views[piece.name]
        whole[:, piece.place] = view.reshape(whole[:, piece.place].shape)
    return views


def _pieces(given: Tensors, updates: Updates, tables: Collection[str]) -> Iterator[_Piece]:
    """Cut what is sent into columns."""
    for name, change in updates.tensors.items():
        whole = given[name]
        num_clients, num_rows = whole.shape[:2]
        if name not in tables:
            every, flat = slice(0, num_rows), change.reshape(len(change), -1)
            yield _Piece(name, every, whole.reshape(num_clients, -1), flat, None)
            continue
        width = whole[0, 0].size
        at_once = max(1, _FLOATS_AT_ONCE // (num_clients * width))
        for start in range(0, num_rows, at_once):
            place = slice(start, min(start + at_once, num_rows))
            given_rows = whole[:, place].reshape(num_clients, -1)
            yield _Piece(name, place, given_rows, *_spread(updates, change, place))


def _spread(
    updates: Updates, change: NDArray[np.float32], place: slice
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Some rows of a table's change in full, (num_members, width), and which were touched."""
    chosen = (updates.rows >= place.start) & (updates.rows < place.stop)
    member, row = updates.owners[chosen], updates.rows[chosen] - place.start
    shape = (len(updates.clients), place.stop - place.start)
    touched, full = np.zeros(shape, np.float32), np.zeros((*shape, *change.shape[1:]), np.float32)
    touched[member, row], full[member, row] = 1.0, change[chosen]
    return full.reshape(len(full), -1), touched


_ALIVE = 7  # versions of all clients at once: see above
_MEGABYTE = 1_000_000


class UserGraph(FederatedStrategy):
    """Gives every client the mean over the clients most like it.

    Clients outside a cohort get the mean over those of the cohort that are most like them. Clients
    that learnt from nothing are nobody's neighbours.

    Args:
        info: facts of the run.
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

    needs_individual_updates: ClassVar[bool] = True
    models_per_client: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        num_neighbours: int | None,
        threshold: float,
        pull: float,
        memory_budget_mb: int,
    ) -> None:
        super().__init__(info, aggregation)
        enough = num_neighbours is None or num_neighbours >= 1
        require(enough, f"strategy.num_neighbours must be at least 1 or null: {num_neighbours}")
        require(-1 <= threshold <= 1, f"strategy.threshold must be in [-1, 1]: {threshold}")
        require(0 <= pull <= 1, f"strategy.pull must be in [0, 1]: {pull}")
        _check_memory(info, memory_budget_mb)
        self.num_neighbours, self.threshold, self.pull = num_neighbours, threshold, pull

    def client_update(self) -> Plain:
        """See `FederatedStrategy.client_update`: as under FedProx."""
        return Plain(proximal=self.pull)

    def initialize(self, initial: Tensors) -> Tensors:
        """See `FederatedStrategy.initialize`: a version per client, all alike."""
        count = self.info.num_clients
        views: dict[str, Any] = {n: np.repeat(v[None], count, 0) for n, v in initial.items()}
        return views | {VERSIONS: np.arange(count)}

    def apply_updates(
        self,
        parameters: Tensors,
        updates: Updates,
        losses: NDArray[np.float64],
        round_: RoundInfo,
    ) -> Tensors:
        """See `FederatedStrategy.apply_updates`."""
        del losses, round_
        tables = self.info.item_tables
        heard = updates.select(np.flatnonzero(updates.weights > 0), tables)
        similarity = cosine_similarity(parameters, heard, tables, centred=True)
        shares = neighbour_shares(similarity, heard.weights, self.num_neighbours, self.threshold)
        views = mean_over_neighbours(parameters, heard, tables, shares, self.aggregation)
        return self.apply_update(parameters, views)

    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The clients' new views take the place of the old."""
        del parameters
        return update


def _check_memory(info: FederationInfo, budget: int) -> None:
    needed = _ALIVE * 4 * info.num_clients * info.model.num_shared() / _MEGABYTE
    if needed > budget:
        raise ConfigError(
            f"a version of the shared parameters for each of {info.num_clients} clients takes the "
            f"server about {needed:.0f} MB, strategy.memory_budget_mb={budget} allows less: raise "
            "it, lower model.embedding_dim or choose strategy=clustered"
        )
