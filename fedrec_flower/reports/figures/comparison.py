"""Figure: test metrics of all models."""

from collections import Counter

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.style import (
    COLOURS,
    FAINT,
    INK,
    chance_level,
    datasets,
    federated,
    leaky,
    legend_below,
    lower_is_better,
    metric_label,
    panels,
    series_labels,
)
from fedrec_flower.reports.run_frames import count_repeats, drop_repeated_runs

_ROW, _TWO_LINES = 0.28, 0.45  # inches
_FEDERATED, _ALONE = COLOURS[0], COLOURS[1]


def comparison(summaries: pd.DataFrame, *metrics: str) -> Figure:
    """Draw test metrics of each model as points with error bars, one panel per metric.

    The best by the first metric is on top. Runs of the leaky protocol come last, as rings. Runs
    without federation have another colour. A bar is one standard deviation over seeds (or folds),
    or one standard error over users for a single run. The subtitle names the kind of most bars;
    the kind of another bar is below the model's name.

    Args:
        summaries: from `load_summaries`; only completed runs count.
        metrics: test metrics, such as `ndcg@10`, taken at the round that validation selected.

    Returns:
        The figure.

    Raises:
        FedrecError: if no completed run reports one of the metrics.
    """
    tables = [measured(summaries, metric) for metric in metrics]
    first, common = tables[0], _most_bars(tables[0])
    rows = [
        str(name) if kind == common else f"{name}\n{kind}"
        for name, kind in first["bar_kind"].items()
    ]
    high = np.where(first["bar_kind"] == common, _ROW, _TWO_LINES)
    width = 7.0 if len(metrics) == 1 else 2.0 + 2.3 * len(metrics)
    figure, every = panels(
        _title(metrics, summaries), _subtitle(first, metrics), xs=[*map(metric_label, metrics)],
        size=(width, 1.6 + high.sum()),
    )  # fmt: skip
    places = np.cumsum(high) - high / 2  # inches from the top
    for axes, metric, table in zip(every, metrics, tables, strict=True):
        _draw_points(axes, table.reindex(first.index), places, numbers=len(metrics) == 1)
        _scale(axes, metric, float((table["mean"] + table["bar"]).max()))
        axes.grid(visible=len(metrics) > 1, axis="y")  # leads from names to points far from them
    every[0].set_yticks(places, rows)
    every[0].set_ylim(high.sum(), 0)
    keys = _keys(first)
    if len(keys) > 1:
        legend_below(figure, keys)
    return figure


def measured(summaries: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the test values of each model, the best first and leaky runs last.

    Args:
        summaries: from `load_summaries`; only completed runs count.
        metric: a test metric, such as `ndcg@10`.

    Returns:
        Indexed by label: mean, bar (one standard deviation over seeds or one standard error over
        users; 0 if neither is known), bar_kind (one of them), federated and leaky.

    Raises:
        FedrecError: if no completed run reports the metric.
    """
    column = f"test.{metric}"
    completed = summaries[summaries["status"] == "completed"]
    if column not in completed or not completed[column].notna().any():
        names = completed.columns.astype("str")
        known = [name.removeprefix("test.") for name in names if name.startswith("test.")]
        raise FedrecError(
            f"no completed run reports {metric}: choose one of the available test metrics "
            f"({', '.join(known) or 'none so far'})"
        )
    shown = completed[completed[column].notna()]
    kinds = {"leaky": leaky(shown), "federated": federated(shown)}
    shown = shown.assign(label=series_labels(shown), **kinds)
    rows = {label: _row(runs, metric) for label, runs in drop_repeated_runs(shown).groupby("label")}
    table = pd.DataFrame.from_dict(rows, orient="index")
    merit = table["mean"] if lower_is_better(metric) else -table["mean"]
    # A leaky value is not comparable with an honest one.
    return table.iloc[np.lexsort((merit, table["leaky"]))]


def _row(runs: pd.DataFrame, metric: str) -> dict[str, object]:
    values, run = runs[f"test.{metric}"], runs.iloc[0]
    kinds = {name: bool(run[name]) for name in ("leaky", "federated")}
    row = {"mean": values.mean(), "bar": 0.0, "bar_kind": "one seed"} | kinds
    if len(values) > 1:
        return row | {
            "bar": values.std(),
            "bar_kind": f"sd of {len(values)} {count_repeats(runs)[1]}",
        }
    error = run.get(f"test_standard_error.{metric}")
    if pd.isna(error):
        return row
    # pandas stores the number as a float if other runs lack it.
    return row | {"bar": error, "bar_kind": f"one seed, se over {run['num_test_users']:.0f} users"}


def _title(metrics: tuple[str, ...], summaries: pd.DataFrame) -> str:
    what = f"Test {metric_label(metrics[0])}" if len(metrics) == 1 else "Test metrics"
    return f"{what}{datasets(summaries)}"


def _most_bars(table: pd.DataFrame) -> str:
    """Return the most frequent kind of bar; of equally frequent ones that of the better row."""
    return str(Counter(table["bar_kind"]).most_common(1)[0][0])


def _subtitle(table: pd.DataFrame, metrics: tuple[str, ...]) -> str:
    others = ", unless stated otherwise" if len(set(table["bar_kind"])) > 1 else ""
    by = f" by {metric_label(metrics[0])}" if len(metrics) > 1 else ""
    order = f"; the best{by} on top" if len(table) > 1 else ""
    return f"at the released round{order}; bars: {_most_bars(table)}{others}"


def _draw_points(
    axes: Axes, table: pd.DataFrame, places: NDArray[np.float64], *, numbers: bool
) -> None:
    for place, (_, row) in zip(places, table.iterrows(), strict=True):
        colour = _FEDERATED if row["federated"] else _ALONE
        axes.errorbar(
            row["mean"], place, xerr=row["bar"], fmt="o", color=colour, capsize=3,
            markersize=6, markerfacecolor="white" if row["leaky"] else colour,
        )  # fmt: skip
        if numbers:
            axes.annotate(
                f"{row['mean']:.3f}" + (f" ± {row['bar']:.3f}" if row["bar"] else ""),
                (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=9,
                color=INK,
            )  # fmt: skip


def _keys(table: pd.DataFrame) -> list[Line2D]:
    """A key for each kind of row there is."""
    kinds = (
        ("federated", _FEDERATED, table["federated"]),
        ("without federation", _ALONE, ~table["federated"]),
        ("leaky protocol", "white", table["leaky"]),
    )
    return [
        Line2D(
            [], [], linestyle="none", marker="o", markersize=6, label=label, markerfacecolor=fill,
            markeredgecolor=FAINT if fill == "white" else fill,
        )
        for label, fill, there in kinds
        if there.any()
    ]  # fmt: skip


def _scale(axes: Axes, metric: str, highest: float) -> None:
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    if not lower_is_better(metric):
        axes.set_xlim(0, 1.06 * highest or 1)
    chance = chance_level(metric)
    if chance is not None:
        axes.axvline(chance, color=FAINT, linewidth=1.0, linestyle=":")
        axes.annotate(
            "chance", (chance, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=9, color=FAINT,
        )  # fmt: skip
