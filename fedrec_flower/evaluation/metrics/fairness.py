"""How evenly a model serves: its worst clients, and active users beside inactive ones.

Source: Li et al. 2020, "Fair resource allocation in federated learning", section 4, for the worst
tenth of the clients.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def worst_decile(quality: Floats, client: NDArray[np.int64]) -> float:
    """The mean quality of the tenth of the clients that are served worst.

    Args:
        quality: float64 (num_users,), higher is better; NaN for users without a held-out item.
        client: int64 (num_users,), the client of each user; a client's quality is its users' mean.

    Returns:
        In units of the quality, over at least one client; NaN if nobody was measured.
    """
    known = np.isfinite(quality)
    if not known.any():
        return float("nan")
    count = np.bincount(client[known])
    total = np.bincount(client[known], quality[known])
    means = np.sort(total[count > 0] / count[count > 0])
    return float(means[: max(len(means) // 10, 1)].mean())


def activity_gap(quality: Floats, activity: NDArray[np.int64]) -> float:
    """How much better the most active quarter of the users is served than the least active one.

    Args:
        quality: as in `worst_decile`.
        activity: int64 (num_users,), training interactions; equals stay in the order given.

    Returns:
        In units of the quality; NaN if fewer than two users were measured.
    """
    known = np.flatnonzero(np.isfinite(quality))
    if len(known) <= 1:  # two quarters want two users
        return float("nan")
    ordered = quality[known[np.argsort(activity[known], kind="stable")]]
    size = max(len(ordered) // 4, 1)
    return float(ordered[-size:].mean() - ordered[:size].mean())
