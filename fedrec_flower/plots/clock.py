"""What waiting costs, on a simulated clock."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

from fedrec_flower.plots.naming import (
    best_series,
    datasets,
    lower_is_better,
    metric_label,
    runs_told,
)
from fedrec_flower.plots.style import FAINT, canvas, legend_beside, looks

_HOUR = 3600.0  # seconds
_LONG = 2 * _HOUR  # from here on hours read better


def accuracy_against_clock(timed: pd.DataFrame, table: pd.DataFrame, metric: str) -> Figure:
    """Draw a validation metric against simulated time, one line per series.

    A line goes through the evaluated rounds, round by round a mean over seeds of time and of
    value; the untrained model stands at no time and is left out. Of more than seven series those
    that end best are drawn. A dotted line is the goal, where all have the same.

    Args:
        timed: a row per run and evaluated round: dataset, label, seed, round, seconds (simulated,
            since the start) and value.
        table: a row per series: goal, share (of the best value that it is) and waits_for_all; may
            be empty.
        metric: the validation metric that the values are of.

    Returns:
        The figure, time on a logarithmic axis.
    """
    means = timed[timed["seconds"] > 0].groupby(["label", "round"])[["seconds", "value"]].mean()
    last = means.groupby("label")["value"].last()
    best = best_series(last, metric)
    unit, name = (_HOUR, "hours") if means["seconds"].max() > _LONG else (1.0, "seconds")
    figure, axes = canvas(
        f"What waiting costs{datasets(timed)}",
        f"on validation, {runs_told(timed)}; a dot is an evaluated round"
        + (f"; the {len(best)} best of {len(last)}" if len(best) < len(last) else ""),
        x=f"simulated {name} since the start",
        y=f"Validation {metric_label(metric)}",
        size=(7.0, 4.6),
    )
    for label, look in looks(best).items():
        curve = means.loc[label]
        axes.plot(
            curve["seconds"] / unit, curve["value"], label=label, color=look.colour, linewidth=1.6,
            marker="o", markersize=3,
        )  # fmt: skip
    if not table.empty and len(set(table["goal"])) == 1:
        _draw_goal(axes, table)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    if not lower_is_better(metric):
        axes.set_ylim(bottom=0)
    legend_beside(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _draw_goal(axes: Axes, table: pd.DataFrame) -> None:
    goal, share = table[["goal", "share"]].iloc[0]
    whose = " that waits for all" if table["waits_for_all"].any() else ""
    axes.axhline(
        goal, color=FAINT, linewidth=1.0, linestyle=":", label=f"{share:.0%} of the best{whose}"
    )
