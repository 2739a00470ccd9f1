"""Fairness metrics: quality of the worst clients, and the gap between active and inactive users.

Source: Li et al. 2020, "Fair resource allocation in federated learning", section 4, for the worst
tenth of the clients.
"""

import numpy as np

from fedrec_flower.core.types import Float64Array, IndexArray


def worst_decile(quality: Float64Array, client: IndexArray) -> float:
    """Return the mean quality of the tenth of the clients with the lowest quality.

    Args:
        quality: float64 (num_users,), higher is better; NaN for users without a held-out item.
        client: int64 (num_users,), the client of each user; a client's quality is its users' mean.

    Returns:
        Mean over at least one client, in units of the quality; NaN without evaluated users.
    """
    evaluated = np.isfinite(quality)
    if not evaluated.any():
        return float("nan")
    count = np.bincount(client[evaluated])
    total = np.bincount(client[evaluated], quality[evaluated])
    means = np.sort(total[count > 0] / count[count > 0])
    return float(means[: max(len(means) // 10, 1)].mean())


def activity_gap(quality: Float64Array, activity: IndexArray) -> float:
    """Return the mean quality of the most active quarter of the users minus the least active one.

    Args:
        quality: as in `worst_decile`.
        activity: int64 (num_users,), training interactions; ties keep their order.

    Returns:
        The difference, in units of the quality; NaN for fewer than two evaluated users.
    """
    evaluated = np.flatnonzero(np.isfinite(quality))
    if len(evaluated) <= 1:
        return float("nan")
    ordered = quality[evaluated[np.argsort(activity[evaluated], kind="stable")]]
    size = max(len(ordered) // 4, 1)
    return float(ordered[-size:].mean() - ordered[:size].mean())
