"""Many rounds: what the sums of a whole run tell of one client, whatever it drew.

A server that asks for sums knows who was in each cohort. Two attacks use that:

Regression. The change of an item's bias in round t is the sum over the cohort of what each client
does to it. So per item the changes are regressed on who took part, by ridge regression with one
coefficient per client: x_i = D C' (C D C' + s I)^-1 y_i, C (rounds x clients) of zeros and ones.
Without side knowledge D is the identity; a server that knows how many items each client has takes
these numbers for D, since an active client rather has an item.

Separation. See `separation`: each sum is separated into its clients, and who took part when tells
which is which. A client's sources, one from each of its rounds, are added up.

Source: Hoerl and Kennard 1970, "Ridge regression: biased estimation for nonorthogonal problems", in
its dual form, of rounds instead of clients.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fedrec_flower.models.abilities import BilinearForm
from fedrec_flower.threats.observation import Sum
from fedrec_flower.threats.source_separation import Separated, linked, separate

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]

_NOISE = 1.0  # ridge, as a multiple of the mean variance of a round under D
LATEST = 45  # rounds that are separated: vectors grow, so that later ones are told apart better


def regressed(
    sums: Sequence[Sum],
    factors: BilinearForm,
    clients: Codes,
    activities: Codes | None,
    num_clients: int,
) -> Floats:
    """Regress the changes of biases on who took part.

    Args:
        sums: of one round or more.
        factors: names of what makes up a score.
        clients: int64 (m,), whom to score.
        activities: int64 (num_clients,), how many items each client has, or None.
        num_clients: clients of the federation.

    Returns:
        float64 (m, num_items): higher for items that the client rather has.
    """
    changes = np.stack([each.seen[factors.item_bias][:, 0] for each in sums])
    spread = changes.std(axis=1, keepdims=True)
    changes = changes / np.where(spread > 0, spread, 1.0)
    took_part = np.zeros((len(sums), num_clients))
    for place, each in enumerate(sums):
        took_part[place, each.cohort] = 1.0
    weights = np.ones(num_clients) if activities is None else activities / activities.mean()
    # What all rounds have in common tells of nobody.
    changes, took_part = changes - changes.mean(axis=0), took_part - took_part.mean(axis=0)
    spread = (took_part * weights) @ took_part.T
    noise = max(_NOISE * float(np.trace(spread)) / len(spread), 1e-12)
    solved = np.linalg.solve(spread + noise * np.eye(len(spread)), changes)
    found: Floats = weights[clients][:, None] * (took_part[:, clients].T @ solved)
    return found


def separated(
    sums: Sequence[Sum], factors: BilinearForm, rng: np.random.Generator
) -> list[Separated]:
    """The sources of the latest sums."""
    return [
        separate(each.seen[factors.item], each.seen[factors.item_bias][:, 0], each.cohort, rng)
        for each in sums[-LATEST:]
        if len(each.cohort)
    ]


def told_apart(rounds: Sequence[Separated], clients: Codes, num_clients: int) -> Floats:
    """What the sources that are linked to each client say together.

    Args:
        rounds: from `separated`.
        clients: int64 (m,), whom to score.
        num_clients: clients of the federation.

    Returns:
        float64 (m, num_items): higher for items that the client rather has.
    """
    scores = np.zeros((num_clients, len(rounds[0].sources)))
    for each, owned in zip(rounds, linked(rounds, num_clients), strict=True):
        spread = each.sources.std(axis=0)
        scaled = each.sources / np.where(spread > 0, spread, 1.0)
        has = owned >= 0
        scores[each.cohort[has]] += scaled[:, owned[has]].T
    found: Floats = scores[clients]
    return found
