"""What skew costs, and which strategy repairs it."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from fedrec_flower.plots.naming import datasets, metric_label
from fedrec_flower.plots.style import canvas, legend_beside, looks

_REACH = 0.32  # how far from the middle of a partition its strategies stand


def strategies_on_partitions(table: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric of each strategy on each partition.

    Args:
        table: a row per partition and strategy, partitions in the order they are to stand:
            dataset, partition, strategy, num_clients, mean, sd (over seeds; missing for one), se
            (over users; the bar where there is one seed) and seeds.
        metric: the metric, such as `ndcg@10`.

    Returns:
        The figure.
    """
    partitions = list(dict.fromkeys(table["partition"]))
    figure, axes = canvas(
        f"What skew costs which strategy{datasets(table)}",
        "at the round that validation selected; from even partitions to skewed ones; bars: "
        f"{_bars_told(table)}",
        x="",
        y=f"Test {metric_label(metric)}",
        size=(1.6 + 1.05 * len(partitions), 4.6),
    )
    drawn = looks(table["strategy"])
    shifts = np.linspace(-_REACH, _REACH, len(drawn)) if len(drawn) > 1 else np.zeros(1)
    for shift, (strategy, look) in zip(shifts, drawn.items(), strict=True):
        own = table[table["strategy"] == strategy]
        places = [partitions.index(name) + shift for name in own["partition"]]
        bars = own["sd"].fillna(own["se"])
        axes.errorbar(
            places, own["mean"], yerr=bars, label=strategy, color=look.colour, marker=look.marker,
            markersize=5.5, linestyle="none", capsize=2, elinewidth=1.2,
        )  # fmt: skip
    sizes = table.groupby("partition")["num_clients"].first()
    axes.set_xticks(range(len(partitions)), [_told(name, sizes[name]) for name in partitions])
    axes.set_xticks(np.arange(1, len(partitions)) - 0.5, minor=True)
    axes.set_xlim(-0.5, len(partitions) - 0.5)
    axes.tick_params(which="both", axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.grid(visible=True, axis="x", which="minor", color="#E6E6E6", linewidth=0.8)
    legend_beside(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _told(partition: str, num_clients: int) -> str:
    """A partition's name, its measure and its size, one below the other."""
    return "\n".join([*partition.split(), f"{num_clients:,} clients"])


def _bars_told(table: pd.DataFrame) -> str:
    told = [
        "standard error over users, one seed" if number == 1 else f"sd of {number} seeds"
        for number in sorted(set(table["seeds"]))
    ]
    return " or ".join(told)
