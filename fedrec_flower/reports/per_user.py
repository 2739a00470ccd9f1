"""A test metric user by user, from what runs tell of each user."""

import re

import numpy as np
import pandas as pd

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.run_frames import drop_repeated_runs

_RANKING = re.compile(r"(?P<kind>hr|ndcg)@(?P<k>\d+)(?P<sampled>_\d+neg)?")
_ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}


def per_user_column(metric: str) -> str:
    """The column of `per_user.csv` that a metric comes from.

    Raises:
        FedrecError: if the metric is not known user by user.
    """
    ranking = _RANKING.fullmatch(metric)
    if ranking is None and metric not in _ERRORS:
        raise FedrecError(
            f"{metric} is not known user by user: choose hr@k or ndcg@k, with or without _99neg, "
            "or rmse or mae"
        )
    return f"rank{ranking['sampled'] or '_full'}" if ranking else _ERRORS[metric]


def metric_per_user(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Tell a metric of each user, as what is summed over users and what the sum is divided by.

    Args:
        per_user: from `load_per_user`; of runs made again the last counts.
        metric: `hr@k` or `ndcg@k`, with or without `_99neg`, or `rmse` or `mae`.

    Returns:
        One row per run and user that was measured: the columns given, total and count. Of ranks
        the count is 1 and the total the user's metric, any hit or the gain of all held-out items
        over the best there could be; of ratings both are sums over ratings, before any root.

    Raises:
        FedrecError: if the metric is another one or the table lacks its column.
    """
    column = per_user_column(metric)
    if column not in per_user:
        raise FedrecError(
            f"{metric} needs the column {column}, which these runs lack: choose a metric of "
            "their task"
        )
    measured = drop_repeated_runs(per_user.dropna(subset=[column]))
    ranking = _RANKING.fullmatch(metric)
    if ranking is None:
        return measured.assign(total=measured[column], count=measured["num_ratings"])
    k = int(ranking["k"])
    # As `fedrec_flower.evaluation.metrics` defines them; 1 is the best rank.
    gain = 1 / np.log2(measured[column] + 1) if ranking["kind"] == "ndcg" else 1.0
    found = measured.assign(total=np.where(measured[column] <= k, gain, 0.0), count=1.0)
    return _one_row_per_user(found, k, ndcg=ranking["kind"] == "ndcg")


def _one_row_per_user(items: pd.DataFrame, k: int, *, ndcg: bool) -> pd.DataFrame:
    """Turn one row per held-out item into one per user of a run: any hit, or DCG over its best."""
    keys = ["run", "user_id"]
    grouped = items.groupby(keys)["total"]
    total = grouped.max()
    if ndcg:
        best = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
        total = grouped.sum() / best[grouped.size().clip(upper=k) - 1]
    users = items.drop_duplicates(keys).set_index(keys)
    return users.assign(total=total).reset_index()
