"""Separation: decomposes a sum into its clients' updates, without the clients' draws.

A bilinear model changes item i by row_i = sum over clients u of a_ui * (p_u, 1): the client's
vector, and 1 for the bias. A sum over n clients is therefore a mixture of n sources, A (items x
clients), by an unknown matrix P (clients x dimensions). If the vectors have at least n dimensions,
independent component analysis inverts the mixture up to the order of the clients, because histories
are sparse and skewed and mixtures of them are nearly normal. A single cohort hides the order.
Several sums reveal it: the sources of one client are similar in all rounds, and the server has the
list of participants of each round.

Sources: Kariyappa et al. 2023, "Cocktail party attack: breaking aggregation-based privacy in
federated learning using independent component analysis", section 4; Hyvärinen 1999, "Fast and
robust fixed-point algorithms for independent component analysis", equations 15 and 41 (FastICA,
symmetric orthogonalisation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedrec_flower.core.types import Float64Array, IndexArray

_MAX_ITERATIONS = 100  # of FastICA; more iterations hardly change the sources on ML-100K
_TOLERANCE = 1e-5  # change of a direction, as 1 - |cosine|
_NUM_PASSES = 4  # assignments of sources to clients, each with the profiles of the last one
_RIDGE = 1e-3  # added variance of each direction in whitening / mean variance


@dataclass(frozen=True, slots=True)
class Separated:
    """The sources of one sum, in arbitrary order.

    Attributes:
        cohort: int64 (n,), the clients in the sum, ascending.
        sources: float64 (num_items, k), the coefficients of each source, up to a positive scale.
        vectors: float64 (k, d), the client vector of each source.
    """

    cohort: IndexArray
    sources: Float64Array
    vectors: Float64Array


def separate(
    vectors: Float64Array, bias: Float64Array, cohort: IndexArray, rng: np.random.Generator
) -> Separated:
    """Separate a sum into the sources of its clients.

    Args:
        vectors: float64 (num_items, d), the summed changes of item vectors.
        bias: float64 (num_items,), the summed changes of item biases.
        cohort: int64 (n,), the clients in the sum.
        rng: draws the initial directions.
    """
    count = min(len(cohort), vectors.shape[1], len(vectors))
    # Popular items change so much more that they alone would determine the sources.
    length = np.sqrt(np.linalg.norm(vectors, axis=1))
    scale = np.where(length > 0, length, 1.0)[:, None]
    rows = np.concatenate([vectors, bias[:, None]], axis=1) / scale
    rows = rows - rows.mean(axis=0)
    left = np.linalg.svd(rows[:, :-1], full_matrices=False)[0]
    white = left[:, :count] * np.sqrt(len(rows))
    sources = white @ _directions(white, rng).T
    mixing = np.linalg.lstsq(sources, rows, rcond=None)[0]
    # The sign of a source is arbitrary; a client's own items raise their biases.
    sign = np.where(mixing[:, -1:] < 0, -1.0, 1.0)
    return Separated(cohort, sources * scale * sign.T, sign * mixing[:, :-1])


def _directions(data: Float64Array, rng: np.random.Generator) -> Float64Array:
    """float64 (k, k): orthonormal directions in which white data (n, k) are least normal."""
    size = data.shape[1]
    white = data.astype(np.float32)  # twice as fast, and exact enough for a direction
    directions = np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)
    for _ in range(_MAX_ITERATIONS):
        contrast = np.tanh(white @ directions.T)
        slope = (1 - contrast**2).mean(axis=0)
        step = contrast.T @ white / len(white) - slope[:, None] * directions
        left, _, right = np.linalg.svd(step, full_matrices=False)
        orthonormal = left @ right
        cosines = np.einsum("ij,ij->i", orthonormal, directions)
        converged = np.abs(np.abs(cosines) - 1).max() < _TOLERANCE
        directions = orthonormal
        if converged:
            break
    return directions.astype(np.float64)


def assign_sources(rounds: Sequence[Separated], num_clients: int) -> list[IndexArray]:
    """Assign the sources of each round to clients, by participation over the rounds.

    The vectors of one client are similar in all rounds. A source is first assigned to the client
    whose other rounds have a similar source while rounds without that client have none. In further
    passes it is assigned to the client whose other sources are most similar.

    Args:
        rounds: the separated sums, one or more.
        num_clients: number of clients of the federation.

    Returns:
        For each round int64 (n,): the source of each client of the cohort; -1 for none.
    """
    profiles = _profiles(rounds)
    took_part = np.zeros((num_clients, len(rounds)))
    for place, each in enumerate(rounds):
        took_part[each.cohort, place] = 1.0
    source_of = _assign_by_participation(profiles, rounds, took_part)
    for _ in range(_NUM_PASSES):
        source_of = _assign_by_similarity(profiles, rounds, source_of, num_clients)
    return source_of


def _profiles(rounds: Sequence[Separated]) -> list[Float64Array]:
    """The normalised vector of each source: unit rows, (k, d), white over all rounds."""
    units = [_units(each.vectors) for each in rounds]
    units = [unit - unit.mean(axis=0) for unit in units]
    stacked = np.concatenate(units)
    covariance = stacked.T @ stacked / len(stacked)
    size = len(covariance)
    covariance += np.eye(size) * max(_RIDGE * float(np.trace(covariance)) / size, 1e-300)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return [_units(unit @ whitening) for unit in units]


def _units(rows: Float64Array) -> Float64Array:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _assign_by_participation(
    profiles: Sequence[Float64Array], rounds: Sequence[Separated], took_part: Float64Array
) -> list[IndexArray]:
    """Assign sources by their similarity to sources of rounds with and without each client."""
    source_of = []
    for place, each in enumerate(rounds):
        nearest = np.stack([(profiles[place] @ other.T).max(axis=1) for other in profiles])
        outside = 1 - took_part[each.cohort]
        inside = took_part[each.cohort]
        inside[:, place] = 0.0
        gain = _mean_over(inside, nearest) - _mean_over(outside, nearest)
        source_of.append(_assign(gain * np.sqrt(inside.sum(axis=1, keepdims=True))))
    return source_of


def _assign_by_similarity(
    profiles: Sequence[Float64Array],
    rounds: Sequence[Separated],
    source_of: Sequence[IndexArray],
    num_clients: int,
) -> list[IndexArray]:
    """Assign sources by their similarity to the sources of each client in other rounds."""
    total = np.zeros((num_clients, profiles[0].shape[1]))
    assigned = [
        profile[sources] * (sources >= 0)[:, None]
        for profile, sources in zip(profiles, source_of, strict=True)
    ]
    for each, rows in zip(rounds, assigned, strict=True):
        total[each.cohort] += rows
    reassigned = []
    for each, rows, profile in zip(rounds, assigned, profiles, strict=True):
        others = total[each.cohort] - rows
        lengths = np.linalg.norm(others, axis=1, keepdims=True)
        # The direction of a longer sum of profiles is more reliable.
        reassigned.append(_assign(_units(others) @ profile.T * np.sqrt(lengths)))
    return reassigned


def _mean_over(chosen: Float64Array, values: Float64Array) -> Float64Array:
    return np.asarray(chosen @ values / np.maximum(chosen.sum(axis=1, keepdims=True), 1.0))


def _assign(gain: Float64Array) -> IndexArray:
    """int64 (n,): the column assigned to each row, with the largest total gain; -1 for none."""
    from scipy.optimize import linear_sum_assignment  # here: few runs are attacked

    row, column = linear_sum_assignment(-gain)
    assigned = np.full(len(gain), -1, np.int64)
    assigned[row] = column
    return assigned
