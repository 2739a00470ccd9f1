"""Reading which items a client has, from what it sends; for any model whose tables have item rows.

A client's loss pulls the rows of its items one way, towards its own vector, and pushes the rows
of sampled negatives the other way: the rows change along one direction, with one sign for its
items and the other for the negatives. Rows that are not touched do not change at all.
"""

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.attacks.scene import Seen

Floats = NDArray[np.float64]

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
