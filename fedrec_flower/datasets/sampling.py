"""Drawing many users' distinct items at once from mixtures of laws, without a loop over users."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]

# Users who still lack items after so many rounds want a large share of the catalogue: for them
# drawing from all items at once is cheaper than drawing until a new one comes.
_ROUNDS = 12
_CELLS = 4_000_000  # users times items looked at at once, 32 MB an array


@dataclass(frozen=True, slots=True)
class Laws:
    """Probability laws over the same columns, one per row, ready to draw from.

    Attributes:
        weights: float64 (num_laws, num_columns), rows sum to one.
        edges: float64 (num_laws * num_columns,), ascending; law r ends its column c at the
            row's r plus the cumulated weight of columns 0 to c.
    """

    weights: Floats
    edges: Floats

    @classmethod
    def of(cls, weights: Floats) -> "Laws":
        """Laws in proportion to weights (num_laws, num_columns), each row with a positive one."""
        cumulated = weights.cumsum(axis=1)
        total = cumulated[:, -1:]
        rows = np.arange(len(weights))[:, np.newaxis]
        return cls(weights / total, (cumulated / total + rows).ravel())

    def draw(self, rng: np.random.Generator, rows: Counts) -> Counts:
        """One column for each entry of rows (n,), drawn by that row's law; int64 (n,)."""
        columns = self.weights.shape[1]
        found = np.searchsorted(self.edges, rows + rng.random(len(rows)), side="right")
        # The sum above may round up to the next row.
        drawn: Counts = np.minimum(found - rows * columns, columns - 1)
        return drawn


def distinct_items(
    rng: np.random.Generator, sizes: Counts, mixtures: Laws, tastes: Laws
) -> tuple[Counts, Counts]:
    """Draw items for every user, one after another, until each has as many distinct ones as asked.

    Args:
        rng: the only source of randomness.
        sizes: (num_users,), how many items each user gets, at most the number of items.
        mixtures: one law per user over the tastes.
        tastes: one law per taste over the items.

    Returns:
        Users and items, int64 (sizes.sum(),) each, ascending by user, then item.
    """
    num_items = tastes.weights.shape[1]
    pairs = np.empty(0, np.int64)  # user * num_items + item, ascending
    lacking = sizes.copy()
    for _ in range(_ROUNDS):
        if not lacking.any():
            break
        users = np.repeat(np.arange(len(sizes)), lacking)
        items = tastes.draw(rng, mixtures.draw(rng, users))
        drawn = np.unique(users * num_items + items)
        drawn = drawn[~_contains(pairs, drawn)]
        # Never more than lacking are drawn, so none need be chosen for removal afterwards.
        lacking -= np.bincount(drawn // num_items, minlength=len(sizes))
        pairs = _merged(pairs, drawn)
    if lacking.any():
        pairs = _merged(pairs, _rest(rng, lacking, pairs, mixtures.weights, tastes.weights))
    return np.divmod(pairs, num_items)


def _contains(ascending: Counts, values: Counts) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(values), np.bool_)
    found = np.searchsorted(ascending, values)
    held: NDArray[np.bool_] = ascending[np.minimum(found, len(ascending) - 1)] == values
    return held


def _merged(one: Counts, other: Counts) -> Counts:
    # The stable sort sees two ascending runs and merges them in one pass.
    return np.sort(np.concatenate((one, other)), kind="stable")


def _rest(
    rng: np.random.Generator, lacking: Counts, pairs: Counts, mixtures: Floats, tastes: Floats
) -> Counts:
    """The pairs still lacking, unordered: a race of exponential clocks among all other items.

    Source: Efraimidis & Spirakis 2006, Weighted random sampling with a reservoir.
    """
    num_items = tastes.shape[1]
    users = np.flatnonzero(lacking)
    found = []
    for block in np.array_split(users, -(-len(users) * num_items // _CELLS)):
        rates = np.maximum(mixtures[block] @ tastes, 1e-15)  # an item nobody likes comes last
        clocks = rng.standard_exponential(rates.shape) / rates
        first, last = np.searchsorted(pairs, (block[0] * num_items, (block[-1] + 1) * num_items))
        held_by, held = np.divmod(pairs[first:last], num_items)
        here = np.isin(held_by, block)
        clocks[np.searchsorted(block, held_by[here]), held[here]] = np.inf
        order = np.argsort(clocks, axis=1)
        wanted = np.arange(num_items) < lacking[block, np.newaxis]
        rows = np.broadcast_to(block[:, np.newaxis], order.shape)
        found.append(rows[wanted] * num_items + order[wanted])
    return np.sort(np.concatenate(found))
