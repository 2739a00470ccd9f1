"""How models compare on the test set."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrec_flower.errors import FedrecError
from fedrec_flower.plots.naming import (
    LEAKY,
    chance_level,
    datasets,
    lower_is_better,
    metric_label,
    series_labels,
)
from fedrec_flower.plots.style import FAINT, INK, canvas, looks


def comparison(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric of each model as a point with an error bar.

    The best is on top, but runs of the leaky protocol come last, as rings. The bar is one
    standard deviation over seeds, or one standard error over users where there is a single
    seed; which, stands below the model's name.

    Args:
        summaries: from `load_summaries`; only completed runs count.
        metric: a test metric, such as `ndcg@10`, taken at the round that validation selected.

    Returns:
        The figure.

    Raises:
        FedrecError: if no completed run reports the metric.
    """
    table = _table(summaries, metric)
    figure, axes = canvas(
        f"Test {metric_label(metric)}{datasets(summaries)}",
        "at the round that validation selected" + ("; the best on top" if len(table) > 1 else ""),
        x=metric_label(metric),
        y="",
        size=(7.0, 1.6 + 0.45 * len(table)),
    )
    _draw_points(axes, table)
    axes.set_yticks(range(len(table)), [f"{name}\n{told}" for name, told in table["told"].items()])
    axes.set_ylim(len(table) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    if not lower_is_better(metric):
        axes.set_xlim(left=0)
    chance = chance_level(metric)
    if chance is not None:
        axes.axvline(chance, color=FAINT, linewidth=1.0, linestyle=":")
        axes.annotate(
            "chance", (chance, 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
            textcoords="offset points", va="top", fontsize=9, color=FAINT,
        )  # fmt: skip
    return figure


def _draw_points(axes: Axes, table: pd.DataFrame) -> None:
    drawn = looks(table.index)
    points = zip(table.index, table["mean"], table["bar"], strict=True)
    for height, (label, mean, bar) in enumerate(points):
        colour = drawn[label].colour
        axes.errorbar(
            mean, height, xerr=bar, fmt="o", color=colour, capsize=3, markersize=6,
            markerfacecolor="white" if label.endswith(LEAKY) else colour,
        )  # fmt: skip
        axes.annotate(
            f"{mean:.3f} ± {bar:.3f}" if bar else f"{mean:.3f}", (1.02, height),
            xycoords=("axes fraction", "data"), va="center", fontsize=9, color=INK,
        )  # fmt: skip


def _table(summaries: pd.DataFrame, metric: str) -> pd.DataFrame:
    column = f"test.{metric}"
    completed = summaries[summaries["status"] == "completed"]
    if column not in completed or not completed[column].notna().any():
        names = completed.columns.astype("str")
        known = [name.removeprefix("test.") for name in names if name.startswith("test.")]
        raise FedrecError(
            f"no completed run reports {metric}: choose one of the test metrics there are "
            f"({', '.join(known) or 'none so far'})"
        )
    shown = completed[completed[column].notna()]
    shown = shown.assign(label=series_labels(shown))
    # A run repeated with the same seed is no further evidence.
    once = shown.drop_duplicates(["label", "seed"], keep="last")
    rows = {label: _row(runs, metric) for label, runs in once.groupby("label")}
    table = pd.DataFrame.from_dict(rows, orient="index")
    best_first = table.sort_values("mean", ascending=lower_is_better(metric), kind="stable")
    # A leaky figure is no rival of an honest one, however high.
    leaky = best_first.index.str.endswith(LEAKY)
    return pd.concat([best_first[~leaky], best_first[leaky]])


def _row(runs: pd.DataFrame, metric: str) -> dict[str, object]:
    values = runs[f"test.{metric}"]
    if len(values) > 1:
        told = f"sd of {len(values)} seeds"
        return {"mean": values.mean(), "bar": values.std(), "told": told}
    run = runs.iloc[0]
    value, error = values.iloc[0], run.get(f"test_standard_error.{metric}")
    if pd.isna(error):
        return {"mean": value, "bar": 0.0, "told": "one seed"}
    # Among runs without this number pandas holds it as a float.
    users = f"{run['num_test_users']:.0f} users"
    return {"mean": value, "bar": error, "told": f"one seed, se over {users}"}
