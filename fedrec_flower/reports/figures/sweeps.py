"""Figures of sweeps: time to accuracy, asynchronous runs, heterogeneity and attacks."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator, StrMethodFormatter

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.style import (
    FAINT,
    MARKERS,
    Look,
    best_series,
    canvas,
    datasets,
    legend_beside,
    looks,
    lower_is_better,
    metric_label,
    panels,
    runs_caption,
)

_SPACING = 1.07  # factor between points with the same number of clients


def time_to_accuracy(table: pd.DataFrame, metric: str) -> Figure:
    """Draw rounds and megabytes to the goal against clients per round.

    A colour is a number of local epochs, a marker a learning rate; a line joins the best rates. A
    run that did not reach the goal is a hollow marker at its end.

    Args:
        table: one row per experiment: dataset, clients_per_round, local_epochs, learning_rate,
            goal, share (of the centralised run's best value), rounds and megabytes (missing if the
            goal was not reached), rounds_run and megabytes_run.
        metric: the validation metric of the goal.

    Returns:
        The figure, a panel for rounds and one for megabytes.

    Raises:
        FedrecError: if the experiments have different goals.
    """
    goals = sorted(set(table["goal"]))
    if len(goals) > 1:
        raise FedrecError(
            f"{len(goals)} models or datasets have different goals: "
            "compare each in a separate folder"
        )
    figure, every = panels(
        f"The way to the centralised model{datasets(table)}",
        f"until validation {metric_label(metric)} first is {goals[0]:.4f}, "
        f"{table['share'].iloc[0]:.0%} of the centralised run's best; lines: the best rate",
        xs=["clients a round"] * 2,
        ys=["rounds of training", "megabytes a client sends and receives"],
        size=(9.0, 4.6),
    )
    shown = table.assign(epochs=_epoch_labels(table), rate=table["learning_rate"].astype(str))
    shown = shown.assign(x=shown["clients_per_round"] * _shifts(shown))
    drawn = looks(shown["epochs"])
    markers = {r: MARKERS[n % len(MARKERS)] for n, r in enumerate(dict.fromkeys(shown["rate"]))}
    for axes, column in zip(every, ("rounds", "megabytes"), strict=True):
        for epochs, look in drawn.items():
            _draw(axes, shown[shown["epochs"] == epochs], column, look, markers)
        _scale(axes, sorted(set(table["clients_per_round"])))
    missed = bool(table["rounds"].isna().any())
    legend_beside(figure, every[-1], [*_keys(drawn, markers, missed=missed)])
    return figure


def _epoch_labels(table: pd.DataFrame) -> "pd.Series[str]":
    return table["local_epochs"].map(lambda n: f"{n} local epoch{'' if n == 1 else 's'}")


def _shifts(shown: pd.DataFrame) -> "pd.Series[float]":
    """Return a factor per row that separates points with equal clients per round."""
    kinds = shown.groupby(["local_epochs", "learning_rate"]).ngroup()
    return _SPACING ** (kinds - kinds.max() / 2)


def _draw(
    axes: Axes, own: pd.DataFrame, column: str, look: Look, markers: Mapping[str, str]
) -> None:
    """Draw one number of local epochs: all points, and the line of the best rates."""
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


_HOUR = 3600.0  # seconds
_LONG = 2 * _HOUR  # from here on hours read better


def accuracy_against_clock(async_curves: pd.DataFrame, table: pd.DataFrame, metric: str) -> Figure:
    """Draw a validation metric against simulated time, one line per series.

    A line goes through the evaluated rounds, round by round a mean over seeds of time and of
    value; the untrained model stands at no time and is left out. Of more than seven series those
    that end best are drawn. A dotted line is the goal, where all have the same.

    Args:
        async_curves: one row per run and evaluated round: dataset, label, seed, round, seconds
            (simulated, since the start) and value.
        table: a row per series: goal, share (of the best value that it is) and waits_for_all; may
            be empty.
        metric: the validation metric that the values are of.

    Returns:
        The figure, time on a logarithmic axis.
    """
    trained = async_curves[async_curves["seconds"] > 0]
    means = trained.groupby(["label", "round"])[["seconds", "value"]].mean()
    last = means.groupby("label")["value"].last()
    best = best_series(last, metric)
    unit, name = (_HOUR, "hours") if means["seconds"].max() > _LONG else (1.0, "seconds")
    figure, axes = canvas(
        f"What waiting costs{datasets(async_curves)}",
        f"on validation, {runs_caption(async_curves)}; a dot is an evaluated round"
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
    shown = [
        "standard error over users, one seed" if number == 1 else f"sd of {number} seeds"
        for number in sorted(set(table["seeds"]))
    ]
    return " or ".join(shown)


_WIDE, _HIGH = 0.72, 0.34  # inches of a cell
_DARK = 0.55  # share of the scale from which numbers are white


def attacks_on_defences(table: pd.DataFrame) -> Figure:
    """Draw exposure and accuracy as fields of numbers: a row an attack, a column a strategy.

    Args:
        table: a row per attack and strategy, attacks in the order they are to stand: dataset,
            attack, malicious (share), strategy, exposure, ndcg, k and seeds.

    Returns:
        The figure. Strategies stand from the one that is most exposed, mean over attacks.
    """
    k, seeds = table["k"].iloc[0], ", ".join(map(str, sorted(set(table["seeds"]))))
    named = table.assign(row=_rows(table))
    exposure, ndcg = (_field(named, value) for value in ("exposure", "ndcg"))
    size = (3.6 + 2 * _WIDE * exposure.shape[1], 2.6 + _HIGH * exposure.shape[0])
    figure, (left, right) = panels(
        f"What attacks achieve against which strategy, lower bounds{datasets(table)}",
        "honest users alone, on test, at the round that validation selected; attacks in rows, "
        f"with the share of malicious clients; seeds: {seeds}",
        xs=[
            f"users (%) who find a promoted item among their {k} best",
            f"NDCG@{k} of these users",
        ],
        size=size,
    )
    _draw_attacks(left, 100 * exposure, "{:.1f}", {"cmap": "Reds", "vmin": 0, "vmax": 100})
    highest = float(np.nanmax(ndcg.to_numpy()))
    _draw_attacks(right, ndcg, "{:.3f}", {"cmap": "Blues", "vmin": 0, "vmax": highest or 1})
    left.set_yticks(range(len(exposure)), [str(name) for name in exposure.index])
    return figure


def _rows(table: pd.DataFrame) -> "pd.Series[str]":
    share = table["malicious"].map(", {:.0%}".format)
    named: pd.Series[str] = table["attack"] + share.where(table["malicious"] > 0, "")
    return named


def _field(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return one row per attack and one column per strategy; missing without a run."""
    fields = [
        table.pivot_table(index="row", columns="strategy", values=name, sort=False)
        for name in ("exposure", value)
    ]
    faced_by_all = fields[0].dropna()  # a mean over different attacks would not be comparable
    mean = (fields[0] if faced_by_all.empty else faced_by_all).mean()
    return fields[1][list(mean.sort_values(ascending=False, kind="stable").index)]


def _draw_attacks(axes: Axes, field: pd.DataFrame, form: str, look: dict[str, Any]) -> None:
    axes.imshow(field.to_numpy(float), aspect="auto", **look)
    for (row, column), value in np.ndenumerate(field.to_numpy(float)):
        if np.isfinite(value):
            colour = "white" if value > _DARK * look["vmax"] else "#262626"
            axes.text(
                column, row, form.format(value), ha="center", va="center", fontsize=8, color=colour
            )
    axes.set_xticks(range(field.shape[1]), [*map(str, field)], rotation=35, ha="right")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
