"""How well a score tells a client's items from others, above all from equally popular ones.

To rank every item by its popularity tells most users' items from the rest (on ML-100K with an AUC
of .87), though it knows nothing of anybody. So a guess about one client is judged by comparing
each of its items with items that are about as popular and not the client's, as many a little more
popular as a little less. Whatever follows from popularity alone then has an AUC of one half.

Reading which items a client has, from what it sends; for any model whose tables have item rows.

A client's loss pulls the rows of its items one way, towards its own vector, and pushes the rows
of sampled negatives the other way: the rows change along one direction, with one sign for its
items and the other for the negatives. Rows that are not touched do not change at all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.threats.observation import Seen

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]


def auc(ours: Floats, others: Floats) -> float:
    """The probability that one of ours scores higher than one of the others; ties count half.

    Source: Mann and Whitney 1947; Hanley and McNeil 1982 for its being the area under the curve.

    Args:
        ours: float64 (m,), at least one.
        others: float64 (n,), at least one.
    """
    return float(_wins(ours, others).mean())


def auc_error(ours: Floats, others: Floats) -> float:
    """The standard error of `auc`; at least two of each.

    Source: DeLong, DeLong and Clarke-Pearson 1988, equation 5.
    """
    variances = (_wins(ours, others).var(ddof=1), _wins(others, ours).var(ddof=1))
    return float(np.sqrt(variances[0] / len(ours) + variances[1] / len(others)))


def _wins(ours: Floats, others: Floats) -> Floats:
    """float64 (m,): the share of the others that each of ours exceeds."""
    ordered = np.sort(others)
    below, up_to = (np.searchsorted(ordered, ours, side) for side in ("left", "right"))
    share: Floats = (below + up_to) / (2 * len(others))
    return share


@dataclass(frozen=True, slots=True)
class Pairs:
    """A client's items, each beside equally popular ones that are not the client's.

    Attributes:
        own: int64 (n,), items of the client.
        other: int64 (n,), what each is compared with.
        weight: float64 (n,), summing to 1: the same for every item of the client.
    """

    own: Codes
    other: Codes
    weight: Floats

    def auc(self, score: Floats) -> float:
        """The share of comparisons that the client's items win; ties count half.

        Args:
            score: float64 (num_items,).
        """
        own, other = score[self.own], score[self.other]
        return float(self.weight @ ((own > other) + (own == other) / 2))


class Matching:
    """Finds items of equal popularity.

    Args:
        popularity: int64 (num_items,), how often each item occurs in training.
        rng: orders items that are equally popular.
    """

    def __init__(self, popularity: Codes, rng: np.random.Generator) -> None:
        self._order = np.lexsort((rng.random(len(popularity)), popularity))
        self._place = np.empty(len(popularity), np.int64)
        self._place[self._order] = np.arange(len(popularity))

    def pairs(self, own: Codes, others: Codes, each_side: int) -> Pairs:
        """Put beside each item of a client those next to it in popularity.

        Args:
            own: int64 (m,), the client's items. One with none of the others on one side, such as
                the most popular of all, is left out.
            others: int64 (n,), items that are not the client's.
            each_side: how many more popular and as many less popular ones, at most.
        """
        ladder = np.sort(self._place[others])
        rung = np.searchsorted(ladder, self._place[own])
        reach = np.minimum(np.minimum(rung, len(ladder) - rung), each_side)
        steps = np.arange(-each_side, each_side)
        near = (steps >= -reach[:, None]) & (steps < reach[:, None])
        row, column = np.nonzero(near)
        weight = 1 / (2.0 * reach[row] * np.count_nonzero(reach))
        return Pairs(own[row], self._order[ladder[rung[row] + steps[column]]], weight)


_ITERATIONS = 50  # of power iteration: a client's change is all but of rank one


def by_item(seen: Seen, num_items: int) -> list[Floats]:
    """The parts of what was sent that have a row per item: float64 (num_items, ...) each.

    Counts of pairs of items travel as half a matrix, row after row; of them the diagonal is taken,
    the counts of the items themselves.
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


def readings(seen: Seen, num_items: int) -> Floats:
    """Scores of the items, higher for those that the client rather has, in two ways of reading.

    Args:
        seen: what was sent or released.
        num_items: size of the catalogue.

    Returns:
        float64 (2, num_items): how far each row moved along the principal direction of all rows,
        its sign turned by `_side`; and that plus how far the row moved at all, which puts rows
        that went the other way beside those that were not touched.
    """
    tables = by_item(seen, num_items)
    rows = np.concatenate(tables, axis=1) if tables else np.zeros((num_items, 1))
    along = rows @ _principal_direction(rows)
    along *= _side(along, tables)
    return np.stack([along, along + np.linalg.norm(rows, axis=1)])


def guess(readings: Floats) -> NDArray[np.int64]:
    """Codes of the items that an attacker would name: their rows moved to the side of the liked."""
    return np.flatnonzero(readings[0] > 0)


def _principal_direction(rows: Floats) -> Floats:
    """float64 (d,): the unit vector along which rows (n, d) differ most from zero; or zeros."""
    direction: Floats = rows[np.linalg.norm(rows, axis=1).argmax()]
    for _ in range(_ITERATIONS):
        length = float(np.linalg.norm(direction))
        if not length:
            return direction
        direction = rows.T @ (rows @ (direction / length))
    return direction / float(np.linalg.norm(direction))


def _side(along: Floats, tables: list[Floats]) -> float:
    """1 if items lie on the positive side of the direction, -1 if on the negative one.

    A table with one number per item, a bias or a count, rises with the score. Without one, the
    rarer side is that of the items: several negatives are sampled for each.
    """
    alone = [table[:, 0] for table in tables if table.shape[1] == 1 and table.any()]
    if alone:
        agreement = sum(float(values @ along) for values in alone)
        return 1.0 if agreement >= 0 else -1.0
    up, down = int((along > 0).sum()), int((along < 0).sum())
    return 1.0 if down == 0 or 0 < up <= down else -1.0
