"""How many users interacted with both of two items: a symmetric matrix, of which half travels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, Float64Array, IndexArray
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import Histories, incidence

_CELLS_AT_ONCE = 4_000_000  # 32 MB of float64, whatever the catalogue
_DENSE = 0.05  # share of ones from which on a dense product is faster
_DENSE_CELLS = 25_000_000  # 100 MB of float32
SIGNIFICANT = 3  # standard deviations of noise, beyond which a count is believed


def cooccurrences(seen: Histories) -> Float64Array:
    """Count the users of each pair of items.

    Counts stay exact as they travel in float32, up to 2**24 users.

    Args:
        seen: sparse (num_users, num_items) of ones.

    Returns:
        float64 (num_items * (num_items + 1) / 2,): the lower triangle, row after row; on its
        diagonal, the users of each item.
    """
    num_users, num_items = seen.shape
    cells, size = num_users * num_items, max(_CELLS_AT_ONCE // num_items, 1)
    if seen.nnz > _DENSE * cells and cells <= _DENSE_CELLS:
        return _dense_cooccurrences(seen.toarray(), size)
    users_of = seen.T.tocsr()
    blocks = []
    for start in range(0, num_items, size):
        rows = (users_of[start : start + size] @ seen).toarray()
        blocks.append(rows[np.tri(len(rows), num_items, start, dtype=np.bool_)])
    return np.concatenate(blocks).astype(np.float64)


def _dense_cooccurrences(seen: NDArray[Any], size: int) -> Float64Array:
    """`cooccurrences` of a dense (num_users, num_items), `size` items at a time."""
    num_items = seen.shape[1]
    blocks = []
    for start in range(0, num_items, size):
        rows = seen[:, start : start + size].T @ seen
        blocks.append(rows[np.tri(len(rows), num_items, start, dtype=np.bool_)])
    return np.concatenate(blocks).astype(np.float64)


def symmetric(triangle: Float64Array, num_items: int) -> Float64Array:
    """The whole matrix (num_items, num_items) of a lower triangle, as `cooccurrences` packs it."""
    lower = np.tri(num_items, dtype=np.bool_)
    whole = np.zeros((num_items, num_items))
    whole[lower] = triangle
    whole.T[lower] = triangle
    return whole


def norms(history: Columns, user_offsets: IndexArray, num_items: int) -> Float64Array:
    """The L2 norm of each client's `cooccurrences`, summed over its users.

    With G the whole matrix of a client, its lower triangle has the squared norm
    (|G|^2 + |diagonal of G|^2) / 2. For X the client's users by items, |G| = |X' X| = |X X'|.

    Args:
        history: the users' interactions.
        user_offsets: int64 (num_clients + 1,), where each client's users begin.
        num_items: size of the catalogue.

    Returns:
        float64 (num_clients,).
    """
    # Copied, for duplicates are summed in place, in the history's own arrays.
    seen = incidence(history, num_items, np.ones(len(history.offsets) - 1)).copy()
    seen.sum_duplicates()
    user = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    second, fourth = (np.bincount(user, seen.data**power, seen.shape[0]) for power in (2, 4))
    lengths = np.zeros(len(user_offsets) - 1)
    one = np.flatnonzero(np.diff(user_offsets) == 1)
    first = user_offsets[one]
    lengths[one] = np.sqrt((second[first] ** 2 + fourth[first]) / 2)
    for client in np.flatnonzero(np.diff(user_offsets) > 1):
        own = seen[user_offsets[client] : user_offsets[client + 1]]
        lengths[client] = _norm(own)
    return lengths


def _norm(seen: Histories) -> float:
    """The L2 norm of `cooccurrences`, by whichever of X' X and X X' is smaller."""
    num_users, num_items = seen.shape
    if num_users > num_items:
        return float(np.linalg.norm(cooccurrences(seen)))
    diagonal = seen.multiply(seen).sum(axis=0)
    whole = float(((seen @ seen.T).data ** 2).sum())
    return float(np.sqrt((whole + np.square(diagonal).sum()) / 2))


def debiased(
    triangle: Float64Array, num_items: int, flip_rate: float, num_users: float
) -> Float64Array:
    """Estimates, without bias, of `cooccurrences` before answers were flipped.

    Args:
        triangle: of histories in which whether a user had an item was flipped, item by item.
        num_items: size of the catalogue.
        flip_rate: with which probability, below 1/2.
        num_users: how many users answered, each about every item.
    """
    if not flip_rate:
        return triangle
    told, truth = symmetric(triangle, num_items), 1 - 2 * flip_rate
    # An answer is flip_rate + truth * (whether it was had) on average, and answers about two
    # items are independent.
    had = (told.diagonal() - flip_rate * num_users) / truth
    both = told - flip_rate**2 * num_users - flip_rate * truth * np.add.outer(had, had)
    both /= truth**2
    np.fill_diagonal(both, had)
    clean: Float64Array = both[np.tri(num_items, dtype=np.bool_)]
    return clean


def without_noise(gram: Float64Array, noise_std: float) -> Float64Array:
    """What a noisy symmetric matrix most likely was: few strong directions and an even rest.

    The eigenvalues of noise alone spread 2 sqrt(n) standard deviations around the rest's, of which
    the median is an estimate. Those beyond are shrunk by what noise adds to them and takes from
    their directions; the others become the rest. The diagonal, which noise hurts least, is kept
    where that leaves less of it.

    Args:
        gram: float64 (n, n), positive semidefinite but for the noise; at least one row.
        noise_std: standard deviation of the noise in each value on and below the diagonal.

    Returns:
        float64 (n, n), positive semidefinite.

    Source: Capitaine, Donati-Martin and Feral 2009, theorem 2.1: an eigenvalue theta becomes
    theta + r / theta with r = edge^2 / 4, and its direction keeps the share 1 - r / theta^2. The
    product of theta and that share is sqrt(value^2 - edge^2).
    """
    values, vectors = np.linalg.eigh(gram)
    rest, edge = max(float(np.median(values)), 0.0), 2 * noise_std * np.sqrt(len(gram))
    kept = values - rest > edge
    shrunk = np.sqrt((values[kept] - rest) ** 2 - edge**2)
    clean: Float64Array = (vectors[:, kept] * shrunk) @ vectors[:, kept].T
    np.fill_diagonal(clean, np.maximum(clean.diagonal() + rest, gram.diagonal()))
    return clean


def insignificant(users: Float64Array, noise_std: float | Float64Array) -> BoolArray:
    """Which numbers of users noise alone may have made; without noise, those that are zero."""
    return users <= SIGNIFICANT * noise_std
