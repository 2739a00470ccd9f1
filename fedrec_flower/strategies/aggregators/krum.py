"""Averages of the clients that agree with their neighbours: Krum, Multi-Krum, Bulyan.

A client's score is the sum of its squared distances to its nearest fellows, as many as remain when
two and all liars are left out; clients with low scores are elected. Under "all_clients" whole
updates are compared and one election decides all. Under "touched_clients" each item row has an
election of its own among the clients that touched it, over what they say of it in all tables, and
what is not a table has another among all clients. Too few voters tolerate fewer liars: `tolerated`.

Comparing n clients takes n * n distances: cohorts of thousands are slow.

Source: Blanchard et al. 2017 (Krum, Multi-Krum); El Mhamdi et al. 2018 (Bulyan).
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.updates import Tensors, Updates
from fedrec_flower.strategies.aggregators.robust import (
    PerRow,
    Rule,
    Shapes,
    Votes,
    coordinatewise,
    flat,
    middle,
    share_of,
    touches,
)

Ballot = Literal["once", "recursive"]
KRUM_NEEDS, BULYAN_NEEDS = 2, 4  # f liars need as many times f, and three more, to be outvoted


def krum(
    updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow, liars: float
) -> Tensors:
    """The update of the one client with the lowest score.

    Args:
        updates: the clients' updates, finite, of weights above zero.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: who is compared with whom; see the module.
        liars: share of the clients that may lie, in [0, .5).

    Returns:
        float32 by name, full shapes.
    """
    one = _Election(liars, KRUM_NEEDS, lambda _, __: 1, lambda _, __: Votes.mean)
    return one.hold(updates, shapes, tables, per_row)


def multi_krum(
    updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow, liars: float
) -> Tensors:
    """The mean, weighted by `num_examples`, of all but the f clients with the highest scores.

    Without liars it is FedAvg. Arguments: see `krum`.
    """
    most = _Election(liars, KRUM_NEEDS, lambda n, f: n - f, lambda _, __: Votes.mean)
    return most.hold(updates, shapes, tables, per_row)


def bulyan(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    per_row: PerRow,
    liars: float,
    election: Ballot,
) -> Tensors:
    """Of n - 2f elected clients, the mean of the n - 4f values nearest the median.

    The nearest are sought for each place by itself, and weights play no part.

    Args:
        updates: see `krum`, like all but the last two.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: who is compared with whom.
        liars: share of the clients that may lie, in [0, .25).
        election: "once": the n - 2f clients with the lowest scores, as Flower does; "recursive":
            the client with the lowest score among the remaining ones, n - 2f times, as in the
            paper. That takes n^3 comparisons of distances.
    """

    def rule(n: int, f: int) -> Rule:
        return partial(_near_the_median, num_near=n - 4 * f)

    core = _Election(liars, BULYAN_NEEDS, lambda n, f: n - 2 * f, rule, election)
    return core.hold(updates, shapes, tables, per_row)


def tolerated(count: int, liars: float, needs: int) -> int:
    """How many liars are reckoned with among so many clients.

    Args:
        count: number of clients that vote.
        liars: share of them that may lie.
        needs: how many clients each liar needs to be outvoted, beside three.
    """
    return max(0, min(share_of(count, liars), (count - 3) // needs))


@dataclass(frozen=True, slots=True)
class _Election:
    """Who is elected, and what becomes of their updates.

    Attributes:
        liars: share of the voters that may lie.
        needs: see `tolerated`.
        num_elected: from the numbers of voters and of liars, how many are elected.
        rule: from the same numbers, what is made of the elected clients' values.
        ballot: "once": all by the same scores; "recursive": one after another, each by the scores
            among those that remain.
    """

    liars: float
    needs: int
    num_elected: Callable[[int, int], int]
    rule: Callable[[int, int], Rule]
    ballot: Ballot = "once"

    def hold(
        self, updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow
    ) -> Tensors:
        """Elect and combine; see `krum`."""
        if per_row == "all_clients":
            return self._over_all(updates, shapes, tables)
        whole = {name: array for name, array in updates.tensors.items() if name not in tables}
        by_row = self._over_touching(updates, shapes, tables)
        return self._over_all(replace(updates, tensors=whole), shapes, ()) | by_row

    def _over_all(self, updates: Updates, shapes: Shapes, tables: Collection[str]) -> Tensors:
        """One election, by all that every client sent."""
        elected = self._elect(_products(updates, tables)[None], updates.clients[None])[0]
        rule = self._rule(len(updates.clients))
        return coordinatewise(updates.select(elected, tables), shapes, tables, "all_clients", rule)

    def _over_touching(self, updates: Updates, shapes: Shapes, tables: Collection[str]) -> Tensors:
        """An election for each item row."""
        named = [name for name in updates.tensors if name in tables]
        result = {name: np.zeros(shapes[name], np.float32) for name in named}
        for some in touches(updates, named):
            words = np.concatenate([some.values(updates, name) for name in named], axis=-1)
            elected = self._elect(_gram(words), updates.clients[some.voters])
            rule = self._rule(some.voters.shape[1])
            some.only(elected).put(result, updates, named, rule)
        return result

    def _rule(self, count: int) -> Rule:
        return self.rule(count, tolerated(count, self.liars, self.needs))

    def _elect(
        self, products: NDArray[np.float64], clients: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """The voters with the lowest scores; of equal ones, the lowest client codes.

        Args:
            products: float64 (num_rows, n, n), products of what the voters say.
            clients: int64 (num_rows, n), their codes.

        Returns:
            int64 (num_rows, num_elected), places among the voters.
        """
        count = clients.shape[1]
        liars = tolerated(count, self.liars, self.needs)
        num_elected = self.num_elected(count, liars)
        distances = _distances(products)
        if self.ballot == "once":
            order = np.lexsort((clients, _scores(distances, count, liars)), axis=-1)
            return order[:, :num_elected]
        return _one_by_one(distances, clients, num_elected, liars)


def _one_by_one(
    distances: NDArray[np.float64], clients: NDArray[np.int64], num_elected: int, liars: int
) -> NDArray[np.int64]:
    """The voter with the lowest score, then that of the remaining ones, and so on.

    Source: El Mhamdi et al. 2018, section 4.

    Args:
        distances: float64 (num_rows, n, n), infinite on the diagonal; changed in place.
        clients: int64 (num_rows, n), codes of the voters; of equal scores, the lowest wins.
        num_elected: how many are elected.
        liars: how many of the voters may lie.

    Returns:
        int64 (num_rows, num_elected), places among the voters.
    """
    rows, count = np.arange(len(clients)), clients.shape[1]
    elected = np.empty((len(clients), num_elected), np.int64)
    gone = np.zeros(clients.shape, np.bool_)
    for place in range(num_elected):
        scores = _scores(distances.copy(), count - place, liars)
        first = np.lexsort((clients, scores, gone), axis=-1)[:, 0]
        elected[:, place], gone[rows, first] = first, True
        distances[rows, first], distances[rows, :, first] = np.inf, np.inf
    return elected


def _distances(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """Squared distances from products, both (num_rows, n, n); of a voter to itself: infinite."""
    squares = np.einsum("rii->ri", products)
    # Two that are each other's nearest must tie to the bit, or rounding would elect.
    distances = products + products.swapaxes(1, 2)
    np.subtract(squares[:, :, None] + squares[:, None], distances, out=distances)
    np.einsum("rii->ri", distances)[:] = np.inf
    return distances


def _scores(distances: NDArray[np.float64], count: int, liars: int) -> NDArray[np.float64]:
    """Krum's scores, (num_rows, n), among so many voters; changes the distances in place.

    Voters that take no part any more must be infinitely far from all others.
    """
    if count == 1:
        return np.zeros(distances.shape[:2])
    num_near = max(1, count - liars - 2)
    distances.partition(num_near - 1, axis=-1)
    scores: NDArray[np.float64] = distances[..., :num_near].sum(axis=-1)
    return scores


def _products(updates: Updates, tables: Collection[str]) -> NDArray[np.float64]:
    """Products of the clients' whole updates, (num_clients, num_clients), without whole tables."""
    count = len(updates.clients)
    total = np.zeros((count, count))
    for name, array in updates.tensors.items():
        if name not in tables:
            total += _gram(flat(array))
    named = [name for name in updates.tensors if name in tables]
    for some in touches(updates, named):
        words = np.concatenate([some.values(updates, name) for name in named], axis=-1)
        for voters, product in zip(some.voters, _gram(words), strict=True):
            total[np.ix_(voters, voters)] += product
    return total


def _gram(words: NDArray[np.float32]) -> NDArray[np.float64]:
    # float64: a distance between large updates is the small difference of large numbers.
    exact = words.astype(np.float64)
    products: NDArray[np.float64] = np.matmul(exact, exact.swapaxes(-1, -2))
    return products


def _near_the_median(votes: Votes, num_near: int) -> NDArray[np.float32]:
    """The mean of the values nearest the median: neighbours in order; the lower of equals."""
    spare = np.arange(votes.count - num_near)
    center = middle(votes)[..., None]
    below, above = center - votes.ranked(spare), votes.ranked(spare + num_near) - center
    first = np.count_nonzero(below > above, axis=-1, keepdims=True)
    ranks = np.arange(votes.ascending.shape[-1]) + votes.num_zeros * (votes.ascending >= 0)
    near = (ranks >= first) & (ranks < first + num_near)
    total = np.where(near, votes.ascending, 0).sum(axis=-1, dtype=np.float64)
    mean: NDArray[np.float32] = (total / num_near).astype(np.float32)
    return mean
