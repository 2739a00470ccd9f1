"""Separation: the clients behind a sum, told apart without knowing anything that they drew.

A model of factors changes item i by row_i = sum over clients u of a_ui * (p_u, 1): the vector of
the client, and 1 for the bias. A sum over n clients is therefore a mixture of n sources, A (items x
clients), by an unknown matrix P (clients x dimensions). Where the vectors have at least n
dimensions, independent component analysis undoes it up to the order of the clients: histories are
sparse and skewed, mixtures of them are nearly normal. The order is what a cohort hides. It follows
from several sums: what belongs to one client resembles itself from round to round, and the server
knows in which rounds each client took part.

Sources: Kariyappa et al. 2023, "Cocktail party attack: breaking aggregation-based privacy in
federated learning using independent component analysis", section 4; Hyvärinen 1999, "Fast and
robust fixed-point algorithms for independent component analysis", equations 15 and 41 (FastICA,
symmetric orthogonalisation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_ITERATIONS = 100  # of FastICA; more change no source of ML-100K by much
_SETTLED = 1e-5  # change of a direction, as 1 - |cosine|
_PASSES = 4  # of linking, each with the profiles that the one before has found
_RIDGE = 1e-3  # share of the mean variance that whitening adds to each direction


@dataclass(frozen=True, slots=True)
class Separated:
    """The sources of one sum, in no particular order.

    Attributes:
        cohort: int64 (n,), the clients behind the sum, ascending.
        sources: float64 (num_items, k), the coefficients of each source, up to a scale above zero.
        vectors: float64 (k, d), the client's vector that belongs to each source.
    """

    cohort: Codes
    sources: Floats
    vectors: Floats


def separate(vectors: Floats, bias: Floats, cohort: Codes, rng: np.random.Generator) -> Separated:
    """Separate the clients behind a sum.

    Args:
        vectors: float64 (num_items, d), the summed changes of item vectors.
        bias: float64 (num_items,), the summed changes of item biases.
        cohort: int64 (n,), the clients behind the sum.
        rng: where the search begins.
    """
    count = min(len(cohort), vectors.shape[1], len(vectors))
    # Popular items move so much farther that they alone would decide what a source is.
    length = np.sqrt(np.linalg.norm(vectors, axis=1))
    scale = np.where(length > 0, length, 1.0)[:, None]
    rows = np.concatenate([vectors, bias[:, None]], axis=1) / scale
    rows = rows - rows.mean(axis=0)
    left = np.linalg.svd(rows[:, :-1], full_matrices=False)[0]
    white = left[:, :count] * np.sqrt(len(rows))
    sources = white @ _directions(white, rng).T
    mixing = np.linalg.lstsq(sources, rows, rcond=None)[0]
    # A source has two possible signs; a client's own items raise their biases.
    sign = np.where(mixing[:, -1:] < 0, -1.0, 1.0)
    own = sign * mixing[:, :-1]
    return Separated(cohort, sources * scale * sign.T, own)


def _directions(data: Floats, rng: np.random.Generator) -> Floats:
    """float64 (k, k): orthonormal directions in which white data (n, k) are least normal."""
    size = data.shape[1]
    white = data.astype(np.float32)  # twice as fast, and exact enough to find a direction
    found = np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)
    for _ in range(_ITERATIONS):
        bent = np.tanh(white @ found.T)
        slope = (1 - bent**2).mean(axis=0)
        raised = bent.T @ white / len(white) - slope[:, None] * found
        left, _, right = np.linalg.svd(raised, full_matrices=False)
        settled = np.abs(np.abs(np.einsum("ij,ij->i", left @ right, found)) - 1).max() < _SETTLED
        found = left @ right
        if settled:
            break
    return found.astype(np.float64)


def linked(rounds: Sequence[Separated], num_clients: int) -> list[Codes]:
    """Whose source is whose, by who took part when.

    A client's vectors of several rounds resemble each other. So a source is given to the client
    whose other rounds, and no other rounds, have one like it; then, again and again, to the client
    whose other sources it resembles most.

    Args:
        rounds: the separated sums, one at least.
        num_clients: clients of the federation.

    Returns:
        Of each round int64 (n,): the source of each client of the cohort; -1 for none.
    """
    profiles = _profiles(rounds)
    took_part = np.zeros((num_clients, len(rounds)))
    for place, each in enumerate(rounds):
        took_part[each.cohort, place] = 1.0
    owned = _owned_first(profiles, rounds, took_part)
    for _ in range(_PASSES):
        owned = _owned_again(profiles, rounds, owned, took_part)
    return owned


def _profiles(rounds: Sequence[Separated]) -> list[Floats]:
    """What is told of each source by its vector: unit rows, (k, d), white over all rounds."""
    units = [_units(each.vectors) for each in rounds]
    units = [unit - unit.mean(axis=0) for unit in units]
    every = np.concatenate(units)
    covariance = every.T @ every / len(every)
    size = len(covariance)
    covariance += np.eye(size) * max(_RIDGE * float(np.trace(covariance)) / size, 1e-300)
    whitening = np.linalg.cholesky(np.linalg.inv(covariance))
    return [_units(unit @ whitening) for unit in units]


def _units(rows: Floats) -> Floats:
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0))


def _owned_first(
    profiles: Sequence[Floats], rounds: Sequence[Separated], took_part: Floats
) -> list[Codes]:
    owned = []
    for place, each in enumerate(rounds):
        nearest = np.stack([(profiles[place] @ other.T).max(axis=1) for other in profiles])
        inside, outside = took_part[each.cohort], 1 - took_part[each.cohort]
        inside[:, place] = 0.0
        gain = _mean_over(inside, nearest) - _mean_over(outside, nearest)
        owned.append(_dealt(gain * np.sqrt(inside.sum(axis=1, keepdims=True))))
    return owned


def _owned_again(
    profiles: Sequence[Floats],
    rounds: Sequence[Separated],
    owned: Sequence[Codes],
    took_part: Floats,
) -> list[Codes]:
    whole = np.zeros((len(took_part), profiles[0].shape[1]))
    own = [
        profile[held] * (held >= 0)[:, None] for profile, held in zip(profiles, owned, strict=True)
    ]
    for each, part in zip(rounds, own, strict=True):
        whole[each.cohort] += part
    again = []
    for each, part, profile in zip(rounds, own, profiles, strict=True):
        others = whole[each.cohort] - part
        lengths = np.linalg.norm(others, axis=1, keepdims=True)
        # The longer the sum of its other profiles, the surer its direction.
        again.append(_dealt(_units(others) @ profile.T * np.sqrt(lengths)))
    return again


def _mean_over(chosen: Floats, values: Floats) -> Floats:
    return np.asarray(chosen @ values / np.maximum(chosen.sum(axis=1, keepdims=True), 1.0))


def _dealt(gain: Floats) -> Codes:
    """int64 (n,): the column that each row is given, each to one row, of the largest total gain."""
    from scipy.optimize import linear_sum_assignment  # here: few runs are attacked

    row, column = linear_sum_assignment(-gain)
    dealt = np.full(len(gain), -1, np.int64)
    dealt[row] = column
    return dealt
