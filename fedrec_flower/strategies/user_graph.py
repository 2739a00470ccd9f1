"""User graph: every client gets its own shared parameters, a mean over similar clients.

The server compares the clients' parameters and gives each client the mean over its neighbours in a
similarity graph. It keeps one version of the shared parameters per client and sends each client
its own, so a client receives and sends as many bytes as under FedAvg.

The server's cost for N clients with F shared values each: 4 N F bytes per version of all clients,
of which about seven exist at once (now, next, selected, best on test, in transit), and 4 N^2 F to
6 N^2 F floating point operations per round. ML-100K with 32 dimensions: 7 * 203 MB and, on one
core, 2.6 of the 4 seconds of a round of all clients.

Parameters of all clients are one array with a leading axis of clients. It is processed in pieces,
so that beyond it and the result only a few pieces are in memory.

Source: Zhang et al. 2024, "GPFedRec: Graph-guided personalization for federated recommendation",
Algorithm 1 and section 4.2; see `models.pfedrec`. The authors' code uses the cosine *distance* as
similarity, so that its neighbours are the least similar clients; here they are the most similar.
The tables of all clients have much in common, so the client that moved least would be similar to
all; therefore the mean over the clients is subtracted before they are
compared, and the mean similarity is 0.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedrec_flower.core.errors import ConfigError
from fedrec_flower.core.ranges import Fraction, PositiveInt
from fedrec_flower.core.types import Float32Array, Float64Array, Tensors
from fedrec_flower.core.updates import Updates
from fedrec_flower.strategies.base import (
    Aggregation,
    FederatedStrategy,
    FederationInfo,
    RoundInfo,
    equal_versions,
)
from fedrec_flower.strategies.client_updates import LocalUpdateRule, PlainUpdate

_VERSIONS_IN_MEMORY = 7  # of all clients' parameters at once; see the module
_BYTES_PER_FLOAT = 4
_BYTES_PER_MEGABYTE = 1_000_000
_FLOATS_AT_ONCE = 1 << 23  # per piece: 32 MB
_COSINE_ROUNDING = 1e-6  # equally similar clients must not be separated by float32 rounding
_MIN_SQUARED_SHARE = 1e-10  # of a squared norm: below, a difference of equal vectors is rounding


class UserGraph(FederatedStrategy):
    """Gives every client the mean over the clients most similar to it.

    Clients outside a cohort get the mean over the most similar clients of the cohort. Clients
    without training data are not used as neighbours.

    Args:
        info: facts of the run.
        aggregation: "all_clients" averages whole tables (the paper), "touched_clients" divides the
            update of a table's row by the weight of the neighbours that touched it.
        num_neighbours: neighbours of a client, itself included; None to use `threshold`.
        threshold: least similarity of neighbours: a cosine, in [-1, 1], of the differences from
            the mean over the clients; 0 is the mean similarity, with -1 all are neighbours.
        pull: proximal factor of the clients, in [0, 1]: the paper's regularisation (the authors'
            rates make it 0.5); 0: none.
        memory_budget_mb: memory of the clients' versions on the server, in megabytes.

    Raises:
        ConfigError: if the versions do not fit into memory.
    """

    needs_individual_updates: ClassVar[bool] = True
    models_per_client: ClassVar[bool] = True

    def __init__(
        self,
        info: FederationInfo,
        aggregation: Aggregation,
        num_neighbours: PositiveInt | None,
        threshold: Annotated[float, Field(ge=-1, le=1)],
        pull: Fraction,
        memory_budget_mb: int,
    ) -> None:
        super().__init__(info, aggregation)
        _check_memory(info, memory_budget_mb)
        self.num_neighbours = num_neighbours
        self.threshold = threshold
        self.proximal = pull

    @override
    def client_update(self) -> LocalUpdateRule:
        return PlainUpdate(proximal=self.proximal)

    @override
    def initialize(self, initial: Tensors) -> Tensors:
        """One version per client, all equal."""
        num_clients = self.info.num_clients
        return equal_versions(initial, num_clients, np.arange(num_clients))

    @override
    def apply_updates(
        self, parameters: Tensors, updates: Updates, losses: Float64Array, round_: RoundInfo
    ) -> Tensors:
        tables = self.info.item_tables
        members = updates.select(np.flatnonzero(updates.weights > 0), tables)
        similarity = cosine_similarity(parameters, members, tables, centred=True)
        shares = neighbour_shares(similarity, members.weights, self.num_neighbours, self.threshold)
        versions = mean_over_neighbours(parameters, members, tables, shares, self.aggregation)
        return self.apply_update(parameters, versions)

    @override
    def server_step(self, parameters: Tensors, update: Tensors) -> Tensors:
        """The new versions replace the old ones."""
        return update


def _check_memory(info: FederationInfo, budget_mb: int) -> None:
    floats = info.num_clients * info.model.num_shared()
    needed_mb = _VERSIONS_IN_MEMORY * _BYTES_PER_FLOAT * floats / _BYTES_PER_MEGABYTE
    if needed_mb > budget_mb:
        raise ConfigError(
            f"a version of the shared parameters for each of {info.num_clients} clients takes the "
            f"server about {needed_mb:.0f} MB, strategy.memory_budget_mb={budget_mb} allows less: "
            "raise it, lower model.embedding_dim or choose strategy=clustered"
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some columns of all clients' parameters.

    Attributes:
        name: the parameter.
        place: its rows; all of them unless it has a row per item.
        start: float32 (num_clients, width), the values that each client received.
        change: float32 (num_members, width), the members' updates; zero in untouched rows.
        touched: float32 (num_members, num_rows), 1 where a member touched a row; None for a
            parameter without a row per item.
    """

    name: str
    place: slice
    start: Float32Array
    change: Float32Array
    touched: Float32Array | None


def cosine_similarity(
    received: Tensors, updates: Updates, tables: Collection[str], *, centred: bool
) -> Float64Array:
    """The cosine similarity of each client's parameters to those of each member of the cohort.

    A member's parameters are those it received plus its update, another client's those it received.

    Args:
        received: by name float32 (num_clients, ...), the parameters that each client received.
        updates: the members' updates.
        tables: names of the parameters with a row per item.
        centred: whether to subtract the mean over all clients first.

    Returns:
        float64 (num_clients, num_members), in [-1, 1]; 0 for a client whose parameters are zero
        (centred: equal to the mean).
    """
    members = updates.clients
    num_clients = len(next(iter(received.values())))
    products = np.zeros((num_clients, len(members)))
    squares = np.zeros(num_clients)
    uncentred_squares = np.zeros(num_clients)
    for piece in _pieces(received, updates, tables):
        values = piece.start.copy()
        values[members] += piece.change
        uncentred_squares += np.einsum("ij,ij->i", values, values)
        if centred:
            values -= values.mean(axis=0)
        if len(members) == num_clients:
            products += values @ values.T
        else:
            products += values @ values[members].T
        squares += np.einsum("ij,ij->i", values, values)
    is_nonzero = squares > _MIN_SQUARED_SHARE * uncentred_squares
    scale = np.where(is_nonzero, 1 / np.sqrt(np.where(is_nonzero, squares, 1)), 0)
    cosines: Float64Array = products * np.outer(scale, scale[members])
    return np.clip(cosines, -1.0, 1.0)


def neighbour_shares(
    similarity: Float64Array,
    weights: Float64Array,
    num_neighbours: int | None,
    threshold: float,
) -> Float32Array:
    """The share of each member in each client's mean.

    A client's neighbours are the members most similar to it, or those at least as similar as the
    threshold; the most similar one (of a member: itself) is always a neighbour.

    Args:
        similarity: (num_clients, num_members).
        weights: float64 (num_members,), positive; shares are proportional to them.
        num_neighbours: number of neighbours; None to use the threshold.
        threshold: a cosine.

    Returns:
        float32 (num_clients, num_members); rows sum to 1.
    """
    if num_neighbours is None:
        largest = similarity.max(axis=1, keepdims=True)
        limit = np.minimum(threshold, largest)
        is_neighbour = similarity >= limit - _COSINE_ROUNDING
    else:
        nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :num_neighbours]
        is_neighbour = np.zeros(similarity.shape, np.bool_)
        np.put_along_axis(is_neighbour, nearest, values=True, axis=1)
    shares = is_neighbour * weights
    normal: Float32Array = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return normal


def mean_over_neighbours(
    received: Tensors,
    updates: Updates,
    tables: Collection[str],
    shares: Float32Array,
    aggregation: Aggregation,
) -> Tensors:
    """The next parameters of each client: the mean over its neighbours.

    Args:
        received: by name float32 (num_clients, ...), the parameters that each client received.
        updates: the members' updates.
        tables: names of the parameters with a row per item.
        shares: (num_clients, num_members), rows sum to 1.
        aggregation: "all_clients" averages the neighbours' tables (the paper); "touched_clients"
            adds to the mean of the tables that neighbours received, row by row, the mean update
            of the neighbours that touched the row.

    Returns:
        Arrays like `received`, for each parameter of the updates. If all clients are neighbours and
        received the same parameters, the result is FedAvg's.
    """
    result = {name: np.empty_like(received[name]) for name in updates.tensors}
    for piece in _pieces(received, updates, tables):
        member_start = piece.start[updates.clients]
        if piece.touched is None or aggregation == "all_clients":
            mean = shares @ (member_start + piece.change)
        else:
            touched_share = shares @ piece.touched  # (num_clients, num_rows)
            mean_update = (shares @ piece.change).reshape(*touched_share.shape, -1)
            mean_update /= np.where(touched_share > 0, touched_share, 1)[:, :, np.newaxis]
            mean = shares @ member_start + mean_update.reshape(len(mean_update), -1)
        whole = result[piece.name]
        whole[:, piece.place] = mean.reshape(whole[:, piece.place].shape)
    return result


def _pieces(received: Tensors, updates: Updates, tables: Collection[str]) -> Iterator[_Piece]:
    """Split the parameters of the updates into pieces of at most `_FLOATS_AT_ONCE` per client."""
    for name, change in updates.tensors.items():
        whole = received[name]
        num_clients, num_rows = whole.shape[:2]
        if name not in tables:
            all_rows = slice(0, num_rows)
            start = whole.reshape(num_clients, -1)
            yield _Piece(name, all_rows, start, change.reshape(len(change), -1), None)
            continue
        width = whole[0, 0].size
        rows_at_once = max(1, _FLOATS_AT_ONCE // (num_clients * width))
        for first in range(0, num_rows, rows_at_once):
            place = slice(first, min(first + rows_at_once, num_rows))
            start = whole[:, place].reshape(num_clients, -1)
            yield _Piece(name, place, start, *_dense_rows(updates, change, place))


def _dense_rows(
    updates: Updates, change: Float32Array, place: slice
) -> tuple[Float32Array, Float32Array]:
    """A table's updates in some rows as dense arrays.

    Returns:
        float32 (num_members, width), the updates, and float32 (num_members, num_rows), 1 where a
        member touched the row.
    """
    chosen = (updates.rows >= place.start) & (updates.rows < place.stop)
    member = updates.owners[chosen]
    row = updates.rows[chosen] - place.start
    shape = (len(updates.clients), place.stop - place.start)
    touched = np.zeros(shape, np.float32)
    touched[member, row] = 1.0
    dense = np.zeros((*shape, *change.shape[1:]), np.float32)
    dense[member, row] = change[chosen]
    return dense.reshape(len(dense), -1), touched
