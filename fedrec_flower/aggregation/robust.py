"""Averages that a few lying clients cannot move far: median, trimmed mean, bounded norms.

A rule looks at every client's update by itself. Of a table's row, "all_clients" takes the word of
the whole cohort, zero from whoever did not touch it (the textbook's full vectors), and
"touched_clients" only that of the clients that touched it: most clients touch few rows, so most
values of the textbook's are zero and its median is. Whatever is not a table is always all clients'.
A row that one client touched is that client's alone under the latter: no rule can help there.

Weights are `num_examples` and above zero: leave out clients that learnt from nothing.

Source: Yin et al. 2018 (`median`, `trimmed_mean`); Sun et al. 2019 (`norm_bound`).
"""

from collections.abc import Collection
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.aggregation.mean import (
    UpdateSum,
    mean_over_all_clients,
    mean_over_touching_clients,
)
from fedrec_flower.aggregation.updates import Tensors, Updates
from fedrec_flower.aggregation.votes import PerRow, Shapes, Votes, coordinatewise, flat
from fedrec_flower.compiling import compiled


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
