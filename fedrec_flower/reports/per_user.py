"""A test metric of each user, from the per-user tables of runs."""

import re

import numpy as np
import pandas as pd

from fedrec_flower.core.errors import ConfigError, FedrecError
from fedrec_flower.data.prepared import starts
from fedrec_flower.evaluation.metrics.base import RankingMetric, Ranks
from fedrec_flower.evaluation.metrics.registry import parse_metric
from fedrec_flower.reports.run_frames import drop_repeated_runs

_RANKING = re.compile(r"(?P<name>.+?)(?P<sampled>_\d+neg)?")
_ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}
_USER = ["run", "user_id"]


def per_user_column(metric: str) -> str:
    """Return the column of `per_user.csv` that a metric is computed from.

    Raises:
        FedrecError: if the metric cannot be computed from a per-user table.
    """
    if metric in _ERRORS:
        return _ERRORS[metric]
    _, protocol = _ranking_metric(metric)
    return f"rank{protocol}"


def metric_per_user(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Compute a metric of each user, as a sum over the user and its divisor.

    Args:
        per_user: from `load_per_user`; if a run was repeated, its last repetition counts.
        metric: a ranking metric such as `hr@10` or `ndcg@10_99neg`, or `rmse` or `mae`.

    Returns:
        One row per run and evaluated user: the given columns, total and count. For a ranking
        metric, total is the user's value and count is 1. For a rating metric, both are sums over
        the user's ratings, before any root.

    Raises:
        FedrecError: if the metric cannot be computed from a per-user table, or the table lacks its
            column.
    """
    column = per_user_column(metric)
    if column not in per_user:
        raise FedrecError(
            f"{metric} needs the column {column}, which these runs lack: choose a metric of "
            "their task"
        )
    measured = drop_repeated_runs(per_user.dropna(subset=[column]))
    if metric in _ERRORS:
        return measured.assign(total=measured[column], count=measured["num_ratings"])
    ranking_metric, _ = _ranking_metric(metric)
    users = measured.drop_duplicates(_USER).set_index(_USER)
    total = ranking_metric(_ranks(measured, column))
    return users.assign(total=total, count=1.0).reset_index()


def _ranking_metric(name: str) -> tuple[RankingMetric, str]:
    """Return the metric and the suffix of its protocol's rank column."""
    match = _RANKING.fullmatch(name)
    try:
        metric = parse_metric(match["name"] if match else name)
    except ConfigError as error:
        raise FedrecError(f"{name} cannot be computed for each user: {error}") from error
    if metric.needs_candidates:
        raise FedrecError(
            f"{name} cannot be computed for each user, because per-user tables do not have the "
            "number of candidates: choose another metric, such as ndcg@10"
        )
    sampled = match["sampled"] if match else None
    return metric, sampled or "_full"


def _ranks(items: pd.DataFrame, column: str) -> Ranks:
    """Return the ranks of the users in the order of their first rows in the table."""
    rank = items[column].to_numpy()
    user = items.groupby(_USER, sort=False).ngroup().to_numpy()
    sizes = np.bincount(user)
    ascending = rank[np.lexsort((rank, user))].astype(np.int64)
    return Ranks(ascending, starts(sizes), np.zeros_like(sizes))
