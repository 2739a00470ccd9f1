"""Test metrics of user groups by activity."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fedrec_flower.reports.leaderboard import ERRORS
from fedrec_flower.reports.markdown import markdown
from fedrec_flower.reports.per_user import metric_per_user
from fedrec_flower.reports.run_frames import count_repeats

_BINS = 5
_FEW = 30  # training interactions
_ALL = "all users"


def by_activity(per_user: pd.DataFrame, *metrics: str) -> pd.DataFrame:
    """Compute test metrics of user groups by their number of training interactions.

    The groups are all users, users with fewer than 30 interactions, and fifths from the least to
    the most active. Users of equal activity are in one group, so fifths are only about equal. A
    user of several runs is averaged first and counts once.

    Args:
        per_user: from `load_per_user`.
        metrics: metrics of one task: `hr@k` or `ndcg@k`, with or without `_99neg`, or `rmse` or
            `mae`.

    Returns:
        One row per label and group, the best by the first metric first: dataset, label, group
        ("all users", "fewer than 30", "18 to 27"), fifth (1 is the least active; missing for the
        first two), users (their number), seeds (largest number of runs per user), repeated (the
        difference between these runs: "seeds", "folds" or "runs"), and for each metric its mean
        and standard error over users (`hr@10`, `hr@10_se`).

    Raises:
        FedrecError: if a metric is not supported or the table lacks its column.
    """
    measured = {metric: metric_per_user(per_user, metric) for metric in metrics}
    sums = {metric: _averaged(users) for metric, users in measured.items()}
    first = measured[metrics[0]]
    dataset = first.drop_duplicates("label").set_index("label")["dataset"]
    repeated = count_repeats(first)[1]
    rows = [
        {
            "dataset": dataset[label], "label": label, "group": group, "fifth": fifth,
            "users": len(own), "seeds": own["seeds"].max(), "repeated": repeated,
            **_metrics(sums, own.index),
        }
        for group, fifth, members in _groups(sums[metrics[0]])
        for label, own in members.groupby("label")
    ]  # fmt: skip
    return _best_first(pd.DataFrame(rows).astype({"fifth": "Int64"}), metrics[0])


def activity_markdown(table: pd.DataFrame) -> str:
    """Write the table of `by_activity` as Markdown: one row per label for each metric."""
    metrics = [str(name).removesuffix("_se") for name in table if str(name).endswith("_se")]
    count = table.groupby("group")["users"].max()
    heading = table["group"].map(lambda group: f"{group} (n = {count[group]:,})")
    parts = [f"{metric}\n\n{markdown(_wide(table, heading, metric))}" for metric in metrics]
    averaged = (
        f", each averaged over {table['repeated'].iloc[0]}" if table["seeds"].max() > 1 else ""
    )
    return "\n".join(parts) + (
        "\nOn test, by a user's interactions in training, in fifths of the users and, across them, "
        f"those with fewer than {_FEW}; ± one standard error over users{averaged}.\n"
    )


def _wide(table: pd.DataFrame, heading: "pd.Series[str]", metric: str) -> pd.DataFrame:
    """Return one row per label and one column per group; each cell has its standard error."""
    cells = table[metric].map("{:.4f}".format) + table[f"{metric}_se"].map(" ± {:.4f}".format)
    wide = table.assign(cell=cells, heading=heading).pivot_table(
        index="label", columns="heading", values="cell", aggfunc="first", sort=False
    )
    return wide.reset_index().rename(columns={"label": "run"})


def _averaged(users: pd.DataFrame) -> pd.DataFrame:
    """Average total, count and num_train over runs by label and user; seeds counts the runs."""
    averaged = {"total": "mean", "count": "mean", "num_train": "mean", "seeds": "sum"}
    return users.assign(seeds=1).groupby(["label", "user_id"]).agg(averaged)


def _groups(users: pd.DataFrame) -> Iterator[tuple[str, int | None, pd.DataFrame]]:
    """Yield the name, the number of the fifth and the users of each group."""
    yield _ALL, None, users
    few = users[users["num_train"] < _FEW]
    if len(few):
        yield f"fewer than {_FEW}", None, few
    fifths = _fifths(users["num_train"].to_numpy())
    for number in np.unique(fifths):
        members = users[fifths == number]
        low, high = members["num_train"].min(), members["num_train"].max()
        yield f"{low:.0f}" if low == high else f"{low:.0f} to {high:.0f}", int(number) + 1, members


def _fifths(activity: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the bin of each user, 0 for the least active. Equal activities share a bin."""
    edges = np.quantile(activity, np.arange(1, _BINS) / _BINS)
    return np.unique(np.searchsorted(edges, activity), return_inverse=True)[1]


def _metrics(sums: dict[str, pd.DataFrame], users: pd.Index) -> dict[str, float]:
    """Compute the metrics of some users."""
    values: dict[str, float] = {}
    for metric, totals in sums.items():
        mean, error = _mean_and_error(totals.reindex(users).dropna(), metric)
        values |= {metric: mean, f"{metric}_se": error}
    return values


def _mean_and_error(users: pd.DataFrame, metric: str) -> tuple[float, float]:
    """Return the mean over users and its standard error (of a ratio of two means)."""
    total, count = users["total"].to_numpy(float), users["count"].to_numpy(float)
    mean = total.sum() / count.sum()
    spread = np.sum((total - mean * count) ** 2) / max(len(users) - 1, 1)
    error = np.sqrt(spread / len(users)) / count.mean()
    if metric == "rmse":
        root = np.sqrt(mean)
        return root, error / (2 * root) if root else 0.0
    return mean, error


def _best_first(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Sort labels by their metric over all users; keep the order of groups within a label."""
    overall = table[table["group"] == _ALL].set_index("label")[metric]
    merit = table["label"].map(overall) * (1 if metric in ERRORS else -1)
    ordered = table.assign(merit=merit).sort_values(["merit", "label"], kind="stable")
    return ordered.drop(columns="merit").reset_index(drop=True)
