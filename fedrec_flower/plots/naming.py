"""What series and metrics are called in figures."""

import re
from math import log2

import pandas as pd

from fedrec_flower.frames import is_engine, repetitions
from fedrec_flower.plots.style import COLOURS

_METRICS = {"hr": "HR", "ndcg": "NDCG", "mrr": "MRR", "map": "MAP", "auc": "AUC"}
_RATING_METRICS = {"rmse": "RMSE (rating units)", "mae": "MAE (rating units)"}


def metric_label(metric: str) -> str:
    """Write a metric as a reader expects it: `ndcg@10_99neg` as "NDCG@10 (99 negatives)"."""
    if metric in _RATING_METRICS:
        return _RATING_METRICS[metric]
    name, at, rest = metric.removesuffix("_99neg").partition("@")
    candidates = "99 negatives" if metric.endswith("_99neg") else "full ranking"
    return f"{_METRICS.get(name, name.capitalize())}{at}{rest} ({candidates})"


def lower_is_better(metric: str) -> bool:
    """Tell whether a metric is an error rather than a merit."""
    return metric in _RATING_METRICS


def best_series(values: "pd.Series[float]", metric: str) -> list[str]:
    """Choose whom a figure has room for: the best, as many as there are colours.

    Args:
        values: of the metric, by label.
        metric: tells whether more is better.

    Returns:
        The labels, best first; of equal ones the earlier.
    """
    ordered = values.sort_values(ascending=lower_is_better(metric), kind="stable")
    return [str(label) for label in ordered.index[: len(COLOURS)]]


def chance_level(metric: str) -> float | None:
    """What random scores reach on average with one held-out item among 99 negatives.

    Args:
        metric: a metric's name, such as `hr@10_99neg`.

    Returns:
        k / 100 for hit rate and recall, the discounts of the first k ranks / 100 for NDCG;
        None where chance depends on the data.
    """
    match = re.fullmatch(r"(hr|recall|ndcg)@(\d+)_99neg", metric)
    if match is None:
        return None
    ranks = range(1, int(match[2]) + 1)
    return sum(1 / log2(rank + 1) if match[1] == "ndcg" else 1.0 for rank in ranks) / 100


def series_labels(frame: pd.DataFrame) -> "pd.Series[str]":
    """Name the series each row belongs to.

    Args:
        frame: one of the frames of `fedrec_flower.results`; or one run's own table, which
            without a `label` is one series without a name.

    Returns:
        One label per row.
    """
    return _column(frame, "label")


def leaky(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Tell which rows were measured by the leaky protocol."""
    return _column(frame, "protocol").str.contains("legacy")


def federated(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Tell which rows are of a federation, rather than of what federations are compared with."""
    if "federation" not in frame:
        return pd.Series(data=True, index=frame.index)
    return frame["federation"].map(is_engine)


def datasets(frame: pd.DataFrame) -> str:
    """Say which data a figure is about, as the end of its title: " on ml-100k"."""
    names = sorted(set(_column(frame, "dataset")) - {""})
    return f" on {', '.join(names)}" if names else ""


def runs_told(frame: pd.DataFrame) -> str:
    """Say over how many runs a point of each series is a mean: "means over 1 to 3 seeds"."""
    counts, differing = repetitions(frame)
    fewest, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one seed"
    return f"means over {most if fewest == most else f'{fewest} to {most}'} {differing}"


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[str]":
    if name not in frame:
        return pd.Series("", index=frame.index, dtype="str")
    return frame[name].fillna("").astype("str")
