"""Numbers of users of each pair of items: a symmetric matrix, of which clients send one half."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.core.types import BoolArray, Float64Array, IndexArray
from fedrec_flower.data.prepared import Columns
from fedrec_flower.models.closed_form import Incidence, incidence

_MAX_CELLS_PER_BLOCK = 4_000_000  # 32 MB of float64
_MIN_DENSITY = 0.05  # share of ones above which a dense product is faster
_MAX_DENSE_CELLS = 25_000_000  # 100 MB of float32
SIGNIFICANT = 3  # a count is significant above this many standard deviations of noise


def cooccurrences(seen: Incidence) -> Float64Array:
    """Count the users of each pair of items.

    Counts are exact in float32, as they are sent, up to 2**24 users.

    Args:
        seen: sparse (num_users, num_items) of ones.

    Returns:
        float64 (num_items * (num_items + 1) / 2,): the lower triangle, row after row; on its
        diagonal, the users of each item.
    """
    num_users, num_items = seen.shape
    num_cells = num_users * num_items
    size = max(_MAX_CELLS_PER_BLOCK // num_items, 1)
    if seen.nnz > _MIN_DENSITY * num_cells and num_cells <= _MAX_DENSE_CELLS:
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
    """The symmetric matrix (num_items, num_items) of a lower triangle from `cooccurrences`."""
    lower = np.tri(num_items, dtype=np.bool_)
    matrix = np.zeros((num_items, num_items))
    matrix[lower] = triangle
    matrix.T[lower] = triangle
    return matrix


def norms(history: Columns, user_offsets: IndexArray, num_items: int) -> Float64Array:
    """L2 norm of each client's `cooccurrences`, summed over its users.

    The lower triangle of a client's symmetric matrix G has the squared norm
    (|G|^2 + |diagonal of G|^2) / 2. With X the client's users by items, |G| = |X' X| = |X X'|.

    Args:
        history: the users' interactions.
        user_offsets: int64 (num_clients + 1,), index of each client's first user.
        num_items: size of the catalogue.

    Returns:
        float64 (num_clients,).
    """
    # Copied, because `sum_duplicates` works in place, in the arrays of the history.
    seen = incidence(history, num_items, np.ones(len(history.offsets) - 1)).copy()
    seen.sum_duplicates()
    user = np.repeat(np.arange(seen.shape[0]), np.diff(seen.indptr))
    second, fourth = (np.bincount(user, seen.data**power, seen.shape[0]) for power in (2, 4))
    lengths = np.zeros(len(user_offsets) - 1)
    single_user = np.flatnonzero(np.diff(user_offsets) == 1)
    first = user_offsets[single_user]
    lengths[single_user] = np.sqrt((second[first] ** 2 + fourth[first]) / 2)
    for client in np.flatnonzero(np.diff(user_offsets) > 1):
        client_rows = seen[user_offsets[client] : user_offsets[client + 1]]
        lengths[client] = _norm(client_rows)
    return lengths


def _norm(seen: Incidence) -> float:
    """L2 norm of `cooccurrences`, from the smaller one of X' X and X X'."""
    num_users, num_items = seen.shape
    if num_users > num_items:
        return float(np.linalg.norm(cooccurrences(seen)))
    diagonal = seen.multiply(seen).sum(axis=0)
    squares = float(((seen @ seen.T).data ** 2).sum())
    return float(np.sqrt((squares + np.square(diagonal).sum()) / 2))


def debiased(
    triangle: Float64Array, num_items: int, flip_rate: float, num_users: float
) -> Float64Array:
    """Unbiased estimates of `cooccurrences` before randomized response.

    Args:
        triangle: counts from histories in which each user's answer about each item (whether the
            user had it) was flipped at random.
        num_items: size of the catalogue.
        flip_rate: probability of a flip, below 1/2.
        num_users: number of users who answered, each about every item.
    """
    if not flip_rate:
        return triangle
    counts = symmetric(triangle, num_items)
    slope = 1 - 2 * flip_rate
    # An answer is on average flip_rate + slope * (1 if the user had the item, else 0), and answers
    # about two items are independent.
    users = (counts.diagonal() - flip_rate * num_users) / slope
    both = counts - flip_rate**2 * num_users - flip_rate * slope * np.add.outer(users, users)
    both /= slope**2
    np.fill_diagonal(both, users)
    clean: Float64Array = both[np.tri(num_items, dtype=np.bool_)]
    return clean


def without_noise(gram: Float64Array, noise_std: float) -> Float64Array:
    """Estimate a matrix from its noisy version, as few strong directions plus a constant diagonal.

    The eigenvalues of pure noise spread 2 sqrt(n) standard deviations around the constant, which
    the median of all eigenvalues estimates. Larger eigenvalues are shrunk by the amount that noise
    adds to them and removes from their directions; all others are set to the constant. The
    diagonal, where noise is relatively smallest, is kept if the estimate is below it.

    Args:
        gram: float64 (n, n), positive semidefinite except for the noise; at least one row.
        noise_std: standard deviation of the noise in each value on and below the diagonal.

    Returns:
        float64 (n, n), positive semidefinite.

    Source: Capitaine, Donati-Martin and Feral 2009, theorem 2.1: an eigenvalue theta becomes
    theta + r / theta with r = edge^2 / 4, and its direction keeps the share 1 - r / theta^2. The
    product of theta and that share is sqrt(value^2 - edge^2).
    """
    values, vectors = np.linalg.eigh(gram)
    constant = max(float(np.median(values)), 0.0)
    edge = 2 * noise_std * np.sqrt(len(gram))
    is_signal = values - constant > edge
    shrunk = np.sqrt((values[is_signal] - constant) ** 2 - edge**2)
    clean: Float64Array = (vectors[:, is_signal] * shrunk) @ vectors[:, is_signal].T
    np.fill_diagonal(clean, np.maximum(clean.diagonal() + constant, gram.diagonal()))
    return clean


def insignificant(users: Float64Array, noise_std: float | Float64Array) -> BoolArray:
    """True for numbers of users that noise alone can explain; without noise, for zeros."""
    return users <= SIGNIFICANT * noise_std
