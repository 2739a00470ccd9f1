"""Whom a model serves: a metric for users of little and of much activity."""

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import once, repetitions
from fedrec_flower.plots.naming import (
    best_series,
    datasets,
    lower_is_better,
    metric_label,
    series_labels,
)
from fedrec_flower.plots.style import canvas, legend_beside, looks

_BINS = 5
_JOINED = 5  # lines between the points of more series than this would be a thicket
_ERRORS = {"rmse": "squared_error", "mae": "absolute_error"}


def metric_by_activity(per_user: pd.DataFrame, metric: str = "hr@10") -> Figure:
    """Draw a test metric over fifths of the users, from the least to the most active.

    Bars are one standard error over users; a user measured in several runs is averaged first.
    Of more than seven series the seven best are drawn.

    Args:
        per_user: from `load_per_user`, or one run's `per_user.csv`: num_train and, 1 being the
            best, rank_full and rank_99neg; or squared_error, absolute_error (sums over a user's
            test ratings) and num_ratings.
        metric: `hr@k` or `ndcg@k`, with or without `_99neg`, or `rmse` or `mae`.

    Returns:
        The figure.

    Raises:
        FedrecError: if the metric is another one or the table lacks its columns.
    """
    users = _users(per_user, metric)
    sums = users.groupby("label")[["total", "count"]].sum()
    best = best_series(sums["total"] / sums["count"], metric)
    table = _binned(users[users["label"].isin(best)], metric)
    figure, axes = canvas(
        f"Test {metric_label(metric)} by user activity{datasets(per_user)}",
        "fifths of the users; bars: one standard error over users"
        + (f", each averaged over {repetitions(per_user)[1]}" if table["seeds"].max() > 1 else "")
        + (f"; the {len(best)} best of {len(sums)}" if len(best) < len(sums) else ""),
        x="interactions of a user in training",
        y=metric_label(metric),
    )
    drawn = looks(table["label"])
    reach = min(0.35, 0.06 * (len(drawn) - 1))
    shifts = np.linspace(-reach, reach, len(drawn))
    joined = "-" if len(drawn) <= _JOINED else "none"
    for shift, (label, look) in zip(shifts, drawn.items(), strict=True):
        series = table[table["label"] == label]
        axes.errorbar(
            series["bin"] + shift, series["mean"], yerr=series["error"], label=label,
            color=look.colour, marker=look.marker, capsize=3, linestyle=joined, linewidth=1.0,
            elinewidth=1.4,
        )  # fmt: skip
    ticks = table.drop_duplicates("bin").sort_values("bin")
    axes.set_xticks(ticks["bin"], ticks["range"])
    axes.grid(visible=False, axis="x")
    if not lower_is_better(metric):
        axes.set_ylim(bottom=0)
    if len(drawn) > 1:
        legend_beside(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _users(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per series and user, means over seeds: total, count, num_train; seeds; bin, range."""
    rows = _with_sums(once(per_user), metric)
    rows = rows.assign(label=series_labels(rows), seeds=1)
    averaged = {"total": "mean", "count": "mean", "num_train": "mean", "seeds": "sum"}
    users = rows.groupby(["label", "user_id"]).agg(averaged).reset_index()
    users["bin"] = _fifths(users["num_train"].to_numpy())
    ranges = {number: _range_told(members) for number, members in users.groupby("bin")}
    return users.assign(range=users["bin"].map(ranges))


def _binned(users: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per series and bin: label, bin, range, mean, error (of the mean), seeds."""
    return pd.DataFrame(
        {
            "label": label,
            "bin": number,
            "range": members["range"].iloc[0],
            "seeds": members["seeds"].max(),
            **_mean_and_error(members, metric),
        }
        for (label, number), members in users.groupby(["label", "bin"])
    )


def _with_sums(per_user: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Add total (what is summed over users) and count (what the sum is divided by)."""
    ranking = re.fullmatch(r"(hr|ndcg)@(\d+)(_99neg)?", metric)
    if ranking is None and metric not in _ERRORS:
        raise FedrecError(
            f"{metric} is not known user by user: choose hr@k or ndcg@k, with or without _99neg, "
            "or rmse or mae"
        )
    column = _ERRORS.get(metric) or ("rank_99neg" if ranking and ranking[3] else "rank_full")
    if column not in per_user:
        raise FedrecError(
            f"{metric} needs the column {column}, which these runs lack: choose a metric of "
            "their task"
        )
    measured = per_user.dropna(subset=[column])
    if ranking is None:
        return measured.assign(total=measured[column], count=measured["num_ratings"])
    rank, k = measured[column], int(ranking[2])
    # As `fedrec_flower.metrics` defines them; 1 is the best rank.
    gain = 1 / np.log2(rank + 1) if ranking[1] == "ndcg" else rank > 0
    hit = measured.assign(total=np.where(rank <= k, gain, 0.0), count=1.0)
    return _one_row_per_user(hit, k, ndcg=ranking[1] == "ndcg")


def _one_row_per_user(items: pd.DataFrame, k: int, *, ndcg: bool) -> pd.DataFrame:
    """Turn one row per held-out item into one per user of a run: any hit, or DCG over its best."""
    keys = [name for name in ("run", "label", "seed", "user_id") if name in items]
    grouped = items.groupby(keys, dropna=False)
    users = items.drop_duplicates(keys).set_index(keys)
    if ndcg:
        best = np.cumsum(1 / np.log2(np.arange(2, k + 2)))
        held_out = grouped["total"].count().clip(upper=k)
        total = grouped["total"].sum() / best[held_out.to_numpy() - 1]
    else:
        total = grouped["total"].max()
    return users.assign(total=total).reset_index()


def _fifths(activity: NDArray[np.float64]) -> NDArray[np.intp]:
    """A bin for each user, 0 the least active; ties stand together, so fifths are about equal."""
    edges = np.quantile(activity, np.arange(1, _BINS) / _BINS)
    return np.unique(np.searchsorted(edges, activity), return_inverse=True)[1]


def _range_told(users: pd.DataFrame) -> str:
    low, high = users["num_train"].min(), users["num_train"].max()
    span = f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}"
    return f"{span}\nn = {users['user_id'].nunique():,}"


def _mean_and_error(users: pd.DataFrame, metric: str) -> dict[str, float]:
    """The mean of a bin and its standard error over users (that of a ratio of two means)."""
    total, count = users["total"].to_numpy(float), users["count"].to_numpy(float)
    mean = total.sum() / count.sum()
    spread = np.sum((total - mean * count) ** 2) / max(len(users) - 1, 1)
    error = np.sqrt(spread / len(users)) / count.mean()
    if metric == "rmse":
        root = np.sqrt(mean)
        return {"mean": root, "error": error / (2 * root) if root else 0.0}
    return {"mean": mean, "error": error}
