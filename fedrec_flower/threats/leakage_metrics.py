"""AUC of a score that separates a client's items from others, also from equally popular ones.

A ranking of all items by popularity separates most users' items from the rest (on ML-100K with an
AUC of 0.87) without any private information. A score is therefore evaluated by comparing each item
of a client with other items of about the same popularity, equally many slightly more popular and
slightly less popular ones. A score that depends only on popularity then has an AUC of 0.5.

Leakage score: scores a client's items by the direction in which item rows changed.

It applies to every model with tables of item rows. The loss of a client moves the rows of its items
towards the client's vector, and the rows of sampled negatives away from it: the rows change along
one direction, with one sign for the client's items and the other for the negatives. Rows that are
not touched do not change.
"""

from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.threats.observation import Observation


def auc(ours: Float64Array, others: Float64Array) -> float:
    """The probability that a positive scores higher than a negative; ties count half.

    Sources: Mann and Whitney 1947; Hanley and McNeil 1982 for the equality with the area under the
    ROC curve.

    Args:
        ours: float64 (m,), scores of the positives, at least one.
        others: float64 (n,), scores of the negatives, at least one.
    """
    return float(_wins(ours, others).mean())


def auc_error(ours: Float64Array, others: Float64Array) -> float:
    """The standard error of `auc`; requires at least two positives and two negatives.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equation 5.
    """
    variances = (_wins(ours, others).var(ddof=1), _wins(others, ours).var(ddof=1))
    return float(np.sqrt(variances[0] / len(ours) + variances[1] / len(others)))


def _wins(ours: Float64Array, others: Float64Array) -> Float64Array:
    """float64 (m,): the share of `others` below each of `ours`; ties count half."""
    ordered = np.sort(others)
    num_below = np.searchsorted(ordered, ours, "left")
    num_up_to = np.searchsorted(ordered, ours, "right")
    share: Float64Array = (num_below + num_up_to) / (2 * len(others))
    return share


@dataclass(frozen=True, slots=True)
class Pairs:
    """Comparisons of a client's items with equally popular items of other clients.

    Attributes:
        own: int64 (n,), items of the client.
        other: int64 (n,), the item that each is compared with.
        weight: float64 (n,), with sum 1; the total weight of each item of the client is the same.
    """

    own: IndexArray
    other: IndexArray
    weight: Float64Array

    def auc(self, score: Float64Array) -> float:
        """The share of comparisons in which the client's item scores higher; ties count half.

        Args:
            score: float64 (num_items,).
        """
        own, other = score[self.own], score[self.other]
        return float(self.weight @ ((own > other) + (own == other) / 2))


class Matching:
    """Finds items of equal popularity.

    Args:
        popularity: int64 (num_items,), number of training interactions of each item.
        rng: orders items of equal popularity.
    """

    def __init__(self, popularity: IndexArray, rng: np.random.Generator) -> None:
        self._order = np.lexsort((rng.random(len(popularity)), popularity))
        self._place = np.empty(len(popularity), np.int64)
        self._place[self._order] = np.arange(len(popularity))

    def pairs(self, own: IndexArray, others: IndexArray, each_side: int) -> Pairs:
        """Compare each item of a client with the items next to it in popularity.

        Args:
            own: int64 (m,), the client's items. An item without other items on one side, such as
                the most popular item, is not compared.
            others: int64 (n,), items that the client does not have.
            each_side: the largest number of more popular items, and of less popular items.
        """
        other_ranks = np.sort(self._place[others])
        position = np.searchsorted(other_ranks, self._place[own])
        reach = np.minimum(np.minimum(position, len(other_ranks) - position), each_side)
        steps = np.arange(-each_side, each_side)
        is_near = (steps >= -reach[:, None]) & (steps < reach[:, None])
        row, column = np.nonzero(is_near)
        weight = 1 / (2.0 * reach[row] * np.count_nonzero(reach))
        other = self._order[other_ranks[position[row] + steps[column]]]
        return Pairs(own[row], other, weight)


_NUM_ITERATIONS = 50  # of power iteration: a client's change has almost rank one


def by_item(seen: Observation, num_items: int) -> list[Float64Array]:
    """The observed tensors with a row per item: float64 (num_items, ...) each.

    Counts of pairs of items are sent as the lower triangle of a matrix, row by row; its diagonal,
    the counts of single items, is used.
    """
    pairs = num_items * (num_items + 1) // 2
    tables = []
    for value in seen.values():
        if value.shape[:1] == (num_items,):
            tables.append(value.reshape(num_items, -1))
        elif value.shape == (pairs,):
            diagonal = np.cumsum(np.arange(1, num_items + 1)) - 1
            tables.append(value[diagonal][:, None])
    return tables


def leakage_scores(seen: Observation, num_items: int) -> Float64Array:
    """Two scores of the items, higher for items that the client has more probably.

    Args:
        seen: the observed tensors.
        num_items: size of the catalogue.

    Returns:
        float64 (2, num_items). First: the component of each row's change along the principal
        direction of all rows, with the sign of `_side`. Second: the same plus the norm of the
        change, which gives rows of negatives about the score of untouched rows.
    """
    tables = by_item(seen, num_items)
    rows = np.concatenate(tables, axis=1) if tables else np.zeros((num_items, 1))
    along = rows @ _principal_direction(rows)
    along *= _side(along, tables)
    return np.stack([along, along + np.linalg.norm(rows, axis=1)])


def inferred_items(leakage_scores: Float64Array) -> IndexArray:
    """Codes of the inferred items: those with a positive component along the direction."""
    return np.flatnonzero(leakage_scores[0] > 0)


def _principal_direction(rows: Float64Array) -> Float64Array:
    """float64 (d,): the first right singular vector of rows (n, d); zeros if all rows are zero."""
    direction: Float64Array = rows[np.linalg.norm(rows, axis=1).argmax()]
    for _ in range(_NUM_ITERATIONS):
        length = float(np.linalg.norm(direction))
        if not length:
            return direction
        direction = rows.T @ (rows @ (direction / length))
    return direction / float(np.linalg.norm(direction))


def _side(along: Float64Array, tables: list[Float64Array]) -> float:
    """The sign of the client's items along the direction: 1 or -1.

    A table with one number per item, a bias or a count, increases for the client's items. Without
    such a table the rarer sign is used, because several negatives are sampled for each item.
    """
    single_columns = [table[:, 0] for table in tables if table.shape[1] == 1 and table.any()]
    if single_columns:
        agreement = sum(float(values @ along) for values in single_columns)
        return 1.0 if agreement >= 0 else -1.0
    num_positive = int((along > 0).sum())
    num_negative = int((along < 0).sum())
    return 1.0 if num_negative == 0 or 0 < num_positive <= num_negative else -1.0
