"""Whom a model serves: a metric for users of little and of much activity."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrec_flower.errors import FedrecError
from fedrec_flower.plots.naming import best_series, datasets, lower_is_better, metric_label
from fedrec_flower.plots.style import canvas, legend_beside, looks

_JOINED = 5  # lines between the points of more series than this would be a thicket


def metric_by_activity(table: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric over fifths of the users, from the least to the most active.

    Bars are one standard error over users. Of more than seven series the seven best are drawn.

    Args:
        table: from `by_activity`, with the metric and its standard error.
        metric: such as `hr@10`, or `rmse`.

    Returns:
        The figure.

    Raises:
        FedrecError: if the table lacks the metric.
    """
    if f"{metric}_se" not in table:
        raise FedrecError(f"the table lacks {metric}: choose it when you make the table")
    fifths = table[table["fifth"].notna()]
    overall = table[table["group"] == "all users"].set_index("label")[metric]
    best = best_series(overall, metric)
    repeated = f", each averaged over {table['repeated'].iloc[0]}"
    figure, axes = canvas(
        f"Test {metric_label(metric)} by user activity{datasets(table)}",
        "fifths of the users; bars: one standard error over users"
        + (repeated if table["seeds"].max() > 1 else "")
        + (f"; the {len(best)} best of {len(overall)}" if len(best) < len(overall) else ""),
        x="interactions of a user in training",
        y=metric_label(metric),
    )
    _draw(axes, fifths[fifths["label"].isin(best)], metric)
    ticks = fifths.groupby("fifth").agg({"group": "first", "users": "max"})
    told = [f"{group}\nn = {users:,}" for group, users in ticks.itertuples(index=False)]
    axes.set_xticks(ticks.index.to_numpy(int), told)
    axes.grid(visible=False, axis="x")
    if not lower_is_better(metric):
        axes.set_ylim(bottom=0)
    if len(best) > 1:
        legend_beside(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _draw(axes: Axes, table: pd.DataFrame, metric: str) -> None:
    """A point and a bar for each series and fifth, side by side."""
    drawn = looks(table["label"])
    reach = min(0.35, 0.06 * (len(drawn) - 1))
    shifts = np.linspace(-reach, reach, len(drawn))
    joined = "-" if len(drawn) <= _JOINED else "none"
    for shift, (label, look) in zip(shifts, drawn.items(), strict=True):
        series = table[table["label"] == label]
        axes.errorbar(
            series["fifth"].to_numpy(float) + shift, series[metric], yerr=series[f"{metric}_se"],
            label=label, color=look.colour, marker=look.marker, capsize=3, linestyle=joined,
            linewidth=1.0, elinewidth=1.4,
        )  # fmt: skip
