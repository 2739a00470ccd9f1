"""How many rounds and megabytes lead near the centralised run, by clients a round."""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from fedrec_flower.errors import FedrecError
from fedrec_flower.plots.naming import datasets, metric_label
from fedrec_flower.plots.style import FAINT, MARKERS, Look, legend_beside, looks, panels

_APART = 1.07  # factor between neighbours of the same number of clients


def way_to_goal(table: pd.DataFrame, metric: str) -> Figure:
    """Draw when runs got near the centralised run, against clients a round.

    A colour is a number of local epochs, a shape a learning rate; a line joins the best rates.
    What never got there stands hollow where it ended: its way is longer than that.

    Args:
        table: a row per experiment: dataset, clients_per_round, local_epochs, learning_rate, goal,
            share (of what the centralised run reaches at best), rounds and megabytes (missing if
            it never got there), rounds_run and megabytes_run.
        metric: the validation metric that was to be reached.

    Returns:
        The figure, a panel for rounds and one for megabytes.

    Raises:
        FedrecError: if the experiments pursue different goals.
    """
    goals = sorted(set(table["goal"]))
    if len(goals) > 1:
        raise FedrecError(
            f"{len(goals)} models or datasets have goals of their own: compare a folder of each"
        )
    figure, every = panels(
        f"The way to the centralised model{datasets(table)}",
        f"until validation {metric_label(metric)} first is {goals[0]:.4f}, "
        f"{table['share'].iloc[0]:.0%} of the centralised run's best; lines: the best rate",
        xs=["clients a round"] * 2,
        ys=["rounds of training", "megabytes a client sends and receives"],
        size=(9.0, 4.6),
    )
    told = table.assign(epochs=_epochs_told(table), rate=table["learning_rate"].astype(str))
    told = told.assign(x=told["clients_per_round"] * _shifts(told))
    drawn = looks(told["epochs"])
    markers = {r: MARKERS[n % len(MARKERS)] for n, r in enumerate(dict.fromkeys(told["rate"]))}
    for axes, column in zip(every, ("rounds", "megabytes"), strict=True):
        for epochs, look in drawn.items():
            _draw(axes, told[told["epochs"] == epochs], column, look, markers)
        _scale(axes, sorted(set(table["clients_per_round"])))
    missed = bool(table["rounds"].isna().any())
    legend_beside(figure, every[-1], [*_keys(drawn, markers, missed=missed)])
    return figure


def _epochs_told(table: pd.DataFrame) -> "pd.Series[str]":
    return table["local_epochs"].map(lambda n: f"{n} local epoch{'' if n == 1 else 's'}")


def _shifts(told: pd.DataFrame) -> "pd.Series[float]":
    """A factor per row, so that no two of the same clients a round stand on each other."""
    kinds = told.groupby(["local_epochs", "learning_rate"]).ngroup()
    return _APART ** (kinds - kinds.max() / 2)


def _draw(
    axes: Axes, own: pd.DataFrame, column: str, look: Look, markers: Mapping[str, str]
) -> None:
    """One number of local epochs: what got there, what did not, and the line of the best."""
    there = own[own[column].notna()]
    best = there.loc[there.groupby("clients_per_round")[column].idxmin()]
    axes.plot(best["x"], best[column], color=look.colour, linewidth=1.6)
    for _, row in own.iterrows():
        missed = np.isnan(row[column])
        axes.plot(
            row["x"], row[f"{column}_run" if missed else column], marker=markers[row["rate"]],
            color=look.colour, markersize=6, linestyle="none",
            markerfacecolor="none" if missed else look.colour,
        )  # fmt: skip


def _scale(axes: Axes, clients: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(clients, [f"{count:,}" for count in clients])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.08, y=0.08)


def _keys(
    drawn: Mapping[str, Look], markers: Mapping[str, str], *, missed: bool
) -> Iterator[Line2D]:
    for epochs, look in drawn.items():
        yield Line2D([], [], color=look.colour, linewidth=1.6, label=epochs)
    for rate, marker in markers.items():
        yield Line2D(
            [], [], color=FAINT, marker=marker, linestyle="none", label=f"learning rate {rate}"
        )
    if missed:
        yield Line2D(
            [], [], color=FAINT, marker="o", linestyle="none", markerfacecolor="none",
            label="never: where it ended",
        )  # fmt: skip
