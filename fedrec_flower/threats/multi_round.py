"""Inference of one client's items from the sums of many rounds, without the clients' draws.

A server that samples cohorts has the list of clients behind each sum. Two attacks use it:

Regression. The change of an item's bias in round t is the sum of the changes by the clients of the
cohort. For each item, the changes are regressed on participation by ridge regression with one
coefficient per client: x_i = D C' (C D C' + s I)^-1 y_i, with C (rounds x clients) of zeros and
ones. Without side knowledge D is the identity. With the number of items of each client as side
knowledge, D has these numbers on its diagonal, because an active client has an item more probably.

Separation. See `separation`: each sum is separated into sources, and participation over the rounds
assigns the sources to clients. A client's sources, one from each of its rounds, are added up.

Source: Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems", in
its dual form, of rounds instead of clients.
"""

from collections.abc import Sequence

import numpy as np

from fedrec_flower.core.types import Float64Array, IndexArray
from fedrec_flower.models.abilities import BilinearForm
from fedrec_flower.threats.observation import ObservedSum
from fedrec_flower.threats.source_separation import Separated, assign_sources, separate

_RIDGE = 1.0  # multiple of the mean variance of a round under D
LATEST = 45  # number of separated rounds, the last ones: longer vectors are easier to separate


def regression_scores(
    sums: Sequence[ObservedSum],
    factors: BilinearForm,
    clients: IndexArray,
    activities: IndexArray | None,
    num_clients: int,
) -> Float64Array:
    """Regress the changes of biases on participation.

    Args:
        sums: the sums of one round or more.
        factors: names of the parameters in a score.
        clients: int64 (m,), codes of the clients to score.
        activities: int64 (num_clients,), number of items of each client; None if unknown.
        num_clients: number of clients of the federation.

    Returns:
        float64 (m, num_items): higher for items that the client has more probably.
    """
    changes = np.stack([each.seen[factors.item_bias][:, 0] for each in sums])
    spread = changes.std(axis=1, keepdims=True)
    changes = changes / np.where(spread > 0, spread, 1.0)
    took_part = np.zeros((len(sums), num_clients))
    for place, each in enumerate(sums):
        took_part[place, each.cohort] = 1.0
    weights = np.ones(num_clients) if activities is None else activities / activities.mean()
    # The mean over rounds has no information about single clients.
    changes = changes - changes.mean(axis=0)
    took_part = took_part - took_part.mean(axis=0)
    covariance = (took_part * weights) @ took_part.T
    ridge = max(_RIDGE * float(np.trace(covariance)) / len(covariance), 1e-12)
    solved = np.linalg.solve(covariance + ridge * np.eye(len(covariance)), changes)
    scores: Float64Array = weights[clients][:, None] * (took_part[:, clients].T @ solved)
    return scores


def separate_sums(
    sums: Sequence[ObservedSum], factors: BilinearForm, rng: np.random.Generator
) -> list[Separated]:
    """The sources of the last `LATEST` sums; sums of empty cohorts are skipped."""
    return [
        separate(each.seen[factors.item], each.seen[factors.item_bias][:, 0], each.cohort, rng)
        for each in sums[-LATEST:]
        if len(each.cohort)
    ]


def separation_scores(
    rounds: Sequence[Separated], clients: IndexArray, num_clients: int
) -> Float64Array:
    """The sum of the sources that are assigned to each client.

    Args:
        rounds: separated sums; see `separate_sums`.
        clients: int64 (m,), codes of the clients to score.
        num_clients: number of clients of the federation.

    Returns:
        float64 (m, num_items): higher for items that the client has more probably.
    """
    scores = np.zeros((num_clients, len(rounds[0].sources)))
    for each, source_of in zip(rounds, assign_sources(rounds, num_clients), strict=True):
        spread = each.sources.std(axis=0)
        scaled = each.sources / np.where(spread > 0, spread, 1.0)
        is_assigned = source_of >= 0
        scores[each.cohort[is_assigned]] += scaled[:, source_of[is_assigned]].T
    client_scores: Float64Array = scores[clients]
    return client_scores
