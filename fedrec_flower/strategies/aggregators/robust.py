"""Averages that a few lying clients cannot move far: median, trimmed mean, bounded norms.

A rule looks at every client's update by itself. Of a table's row, "all_clients" takes the word of
the whole cohort, zero from whoever did not touch it (the textbook's full vectors), and
"touched_clients" only that of the clients that touched it: most clients touch few rows, so most
values of the textbook's are zero and its median is. Whatever is not a table is always all clients'.
A row that one client touched is that client's alone under the latter: no rule can help there.

Weights are `num_examples` and above zero: leave out clients that learnt from nothing.

Source: Yin et al. 2018 (`median`, `trimmed_mean`); Sun et al. 2019 (`norm_bound`).

Every client's word on the same places of a parameter, side by side: what robust rules compare.

A client's update is zero wherever it touched nothing. Those zeros are counted and never written
down: a cohort's whole tables would not fit into memory, and most of them are zeros.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property, partial
from math import prod
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.compiling import compiled
from fedrec_flower.core.updates import (
    Tensors,
    Updates,
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)

PerRow = Literal["all_clients", "touched_clients"]
Shapes = Mapping[str, tuple[int, ...]]

_AT_ONCE = 1_000_000  # numbers compared at once: 4 MB of float32, and a few times that in passing


@dataclass(frozen=True)
class Votes:
    """What several clients say of some places.

    Attributes:
        values: float32 (num_rows, num_voters, width), finite.
        weights: float64 (num_rows, num_voters), above zero.
        num_zeros: how many clients more say zero, in every row.
        zero_weight: float64 (num_rows,), the weight of those.
    """

    values: NDArray[np.float32]
    weights: NDArray[np.float64]
    num_zeros: int
    zero_weight: NDArray[np.float64]

    @property
    def count(self) -> int:
        """Number of clients, those that say zero included."""
        return int(self.weights.shape[1]) + self.num_zeros

    @cached_property
    def ascending(self) -> NDArray[np.float32]:
        """float32 (num_rows, width, num_voters): the values in order, without the zeros."""
        # A copy even of a single column, which lies as it should: sorting must not touch `values`.
        ordered = np.array(self.values.transpose(0, 2, 1), order="C")
        ordered.sort(axis=-1)
        return ordered

    @cached_property
    def num_negative(self) -> NDArray[np.int64]:
        """int64 (num_rows, width, 1): how many values stand before the zeros."""
        return np.count_nonzero(self.ascending < 0, axis=-1, keepdims=True).astype(np.int64)

    def ranked(self, ranks: NDArray[np.int64]) -> NDArray[np.float32]:
        """The values of given ranks among all clients, zeros included.

        Args:
            ranks: int64 (n,), from zero, the smallest value, to `count` - 1.

        Returns:
            float32 (num_rows, width, n).
        """
        beyond = ranks >= self.num_negative
        places = np.clip(ranks - self.num_zeros * beyond, 0, self.ascending.shape[-1] - 1)
        zero = beyond & (ranks < self.num_negative + self.num_zeros)
        found: NDArray[np.float32] = np.take_along_axis(self.ascending, places, axis=-1)
        found[zero] = 0
        return found

    def mean(self) -> NDArray[np.float32]:
        """float32 (num_rows, width): the mean weighted by the clients' weights."""
        total = np.matmul(self.weights[:, None], self.values)[:, 0]
        weight = self.weights.sum(axis=1) + self.zero_weight
        mean: NDArray[np.float32] = (total / weight[:, None]).astype(np.float32)
        return mean


Rule = Callable[[Votes], NDArray[np.float32]]  # to (num_rows, width)


@dataclass(frozen=True, slots=True)
class Touches:
    """Some item rows, each touched by equally many clients.

    Attributes:
        items: int64 (num_rows,), the item rows.
        entries: int64 (num_rows, num_voters), where in `Updates.rows` they are touched.
        voters: int64 (num_rows, num_voters), places of the clients that did.
    """

    items: NDArray[np.int64]
    entries: NDArray[np.int64]
    voters: NDArray[np.int64]

    def only(self, chosen: NDArray[np.int64]) -> Self:
        """Some voters of each row: int64 (num_rows, n), places among its voters."""
        entries, voters = (
            np.take_along_axis(array, chosen, axis=1) for array in (self.entries, self.voters)
        )
        return type(self)(self.items, entries, voters)

    def values(self, updates: Updates, name: str) -> NDArray[np.float32]:
        """float32 (num_rows, num_voters, width): what each says of its row of a table."""
        array: NDArray[np.float32] = flat(updates.tensors[name])[self.entries]
        return array

    def put(
        self,
        result: Tensors,
        updates: Updates,
        tables: Iterable[str],
        rule: Rule,
        *,
        everyone: bool = False,
    ) -> None:
        """Apply a rule to these rows of tables.

        Args:
            result: where the outcome goes, by name, full shapes.
            updates: the clients' updates.
            tables: names of the tables.
            rule: from what clients say of a place to what holds.
            everyone: whether clients that did not touch a row say zero of it.
        """
        weights = updates.weights[self.voters]
        silent = len(updates.clients) - weights.shape[1] if everyone else 0
        silent_weight = np.maximum(updates.weights.sum() - weights.sum(axis=1), 0) * bool(silent)
        for name in tables:
            held = rule(Votes(self.values(updates, name), weights, silent, silent_weight))
            result[name][self.items] = held.reshape(-1, *result[name].shape[1:])


def touches(updates: Updates, tables: Collection[str]) -> Iterator[Touches]:
    """Every item row that a client touched, once, in pieces that fit into memory.

    Args:
        updates: the clients' updates.
        tables: names of the parameters with a row per item; nothing is given for none.
    """
    width = sum(flat(updates.tensors[name]).shape[1] for name in tables)
    order, owners = np.argsort(updates.rows, kind="stable"), updates.owners
    items, starts, counts = np.unique(updates.rows[order], return_index=True, return_counts=True)
    for num_voters in np.unique(counts).tolist() if width else ():
        alike = np.flatnonzero(counts == num_voters)
        size = max(1, _AT_ONCE // (num_voters * max(width, num_voters)))
        for start in range(0, len(alike), size):
            some = alike[start : start + size]
            entries = order[starts[some, None] + np.arange(num_voters)]
            yield Touches(items[some], entries, owners[entries])


def flat(array: NDArray[Any]) -> NDArray[Any]:
    """A view with two axes, whatever the shape of what is sent per row or client."""
    return array.reshape(len(array), prod(array.shape[1:]))


def coordinatewise(
    updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow, rule: Rule
) -> Tensors:
    """Apply a rule to every place of every parameter.

    Args:
        updates: the clients' updates.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: whether a client that did not touch a table's row says zero of it
            ("all_clients") or nothing ("touched_clients").
        rule: from what clients say of a place to what holds.

    Returns:
        float32 by name, full shapes; rows that nobody touched are zero.
    """
    result = {name: np.zeros(shapes[name], np.float32) for name in updates.tensors}
    named = [name for name in updates.tensors if name in tables]
    for some in touches(updates, named):
        some.put(result, updates, named, rule, everyone=per_row == "all_clients")
    for name in result.keys() - set(named):
        held = _over_all(flat(updates.tensors[name]), updates.weights, rule)
        result[name] = held.reshape(shapes[name])
    return result


def _over_all(
    values: NDArray[np.float32], weights: NDArray[np.float64], rule: Rule
) -> NDArray[np.float32]:
    """A rule over all clients, for what is sent whole: (num_clients, n) to (n,)."""
    size = max(1, _AT_ONCE // len(values))
    pieces = [values[None, :, start : start + size] for start in range(0, values.shape[1], size)]
    nothing = np.zeros(1)
    held = [rule(Votes(piece, weights[None], 0, nothing))[0] for piece in pieces]
    return np.concatenate([*held, np.zeros(0, np.float32)])


def median(updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow) -> Tensors:
    """The median of each place, every client alike: weights play no part.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: who is asked about a table's row; see the module.

    Returns:
        float32 by name, full shapes.
    """
    return coordinatewise(updates, shapes, tables, per_row, middle)


def trimmed_mean(
    updates: Updates, shapes: Shapes, tables: Collection[str], per_row: PerRow, trim: float
) -> Tensors:
    """The mean of each place without its extremes; what is kept is weighted by `num_examples`.

    Trimming nothing is FedAvg. Where equal values stand at the cut, each keeps the same part of
    its weight, so that the order of the clients does not matter.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: who is asked about a table's row; see the module.
        trim: share of the clients cut at each end, rounded down, in [0, .5).

    Returns:
        float32 by name, full shapes.
    """
    return coordinatewise(updates, shapes, tables, per_row, partial(_trimmed, trim=trim))


def norm_bound(
    updates: Updates,
    shapes: Shapes,
    tables: Collection[str],
    per_row: PerRow,
    bound: float | None,
) -> Tensors:
    """FedAvg of updates none of which is longer than a bound; weighted by `num_examples`.

    Args:
        updates: the clients' updates, finite.
        shapes: full shapes of the parameters.
        tables: names of the parameters with a row per item.
        per_row: whose weights a table's row is divided by; see the module.
        bound: the longest Euclidean norm of a whole update, all parameters together; None takes
            the median of the cohort's norms.

    Returns:
        float32 by name, full shapes.
    """
    lengths = norms(updates, tables)
    limit = float(np.median(lengths)) if bound is None else bound
    scale = limit / np.maximum(lengths, max(limit, np.finfo(float).tiny))
    num_items = next((shapes[name][0] for name in updates.tensors if name in tables), 0)
    total = UpdateSum.zeros({name: shapes[name] for name in updates.tensors}, num_items)
    # A shorter update, not a lighter client: what the sum is divided by stays.
    total.add(replace(updates, weights=updates.weights * scale), tables)
    total.weight = float(updates.weights.sum())
    by_row = np.bincount(updates.rows, updates.row_weights, num_items)
    total.row_weight = by_row.astype(np.float64)
    if per_row == "all_clients":
        return mean_over_all_clients(total)
    return mean_over_touching_clients(total, tables)


def norms(updates: Updates, tables: Collection[str]) -> NDArray[np.float64]:
    """float64 (num_clients,): Euclidean norm of each client's whole update."""
    squares = np.zeros(len(updates.clients))
    for name, array in updates.tensors.items():
        # float64: the square of a large float32 is infinite.
        each: NDArray[Any] = np.einsum("ij,ij->i", flat(array), flat(array), dtype=np.float64)
        squares += np.bincount(updates.owners, each, len(squares)) if name in tables else each
    return np.sqrt(squares)


def middle(votes: Votes) -> NDArray[np.float32]:
    """The median of each place; of an even number of values the mean of the two in the middle."""
    pair = np.array([(votes.count - 1) // 2, votes.count // 2])
    center: NDArray[np.float32] = votes.ranked(pair).mean(axis=-1)
    return center


def share_of(count: int, share: float) -> int:
    """A share of a number of clients, rounded down; 29 % of 100 are 29, whatever a float says."""
    return int(share * count + 1e-9)


def _trimmed(votes: Votes, trim: float) -> NDArray[np.float32]:
    cut = share_of(votes.count, trim)
    if not cut:
        return votes.mean()
    low, high = np.moveaxis(votes.ranked(np.array([cut, votes.count - 1 - cut])), -1, 0)
    kept = np.zeros(low.shape, np.float32)
    _compiled()(
        votes.values, votes.weights, votes.num_zeros, votes.zero_weight, low, high, cut, kept
    )
    return kept


def _mean_between(
    values: Any,
    weights: Any,
    zeros: Any,
    zero_weight: Any,
    low: Any,
    high: Any,
    cut: Any,
    kept: Any,
) -> None:
    """The weighted mean of what lies between two values that are themselves not cut.

    Of those equal to `low` (or `high`) some may be cut: as many as makes `cut` with all below it.
    """
    num_rows, num_voters, width = values.shape
    for row in range(num_rows):
        for column in range(width):
            least, most = low[row, column], high[row, column]
            if least == most:
                kept[row, column] = least
                continue
            total = weight = low_weight = high_weight = 0.0
            below = above = at_low = at_high = 0
            for voter in range(num_voters + 1):
                # The clients that say zero come last, as one voter who counts for all of them.
                value, share, count = np.float32(0), zero_weight[row], zeros
                if voter < num_voters:
                    value, share, count = values[row, voter, column], weights[row, voter], 1
                if value < least:
                    below += count
                elif value == least:
                    at_low, low_weight = at_low + count, low_weight + share
                elif value < most:
                    total, weight = total + share * value, weight + share
                elif value == most:
                    at_high, high_weight = at_high + count, high_weight + share
                else:
                    above += count
            low_weight *= (below + at_low - cut) / at_low
            high_weight *= (above + at_high - cut) / at_high
            total += low_weight * least + high_weight * most
            kept[row, column] = total / (weight + low_weight + high_weight)


@cache
def _compiled() -> Any:
    return compiled(_mean_between)  # when it is needed: the compiler takes a second to import
