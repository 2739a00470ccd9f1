"""What privacy costs in accuracy, and how that shrinks with the population."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import TRAPDOOR, is_seeded, once
from fedrec_flower.plots.naming import metric_label
from fedrec_flower.plots.style import canvas, legend_beside, looks


def privacy_utility(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric against epsilon, one line per model and population.

    Points are means over seeds, bars one standard deviation over seeds where there are several.
    Runs without noise (epsilon is infinite) stand at the right, beyond a gap in their line.

    Args:
        summaries: from `load_summaries`; only completed runs count.
        metric: a test metric, such as `ndcg@10`.

    Returns:
        The figure.

    Raises:
        FedrecError: if no completed run reports the metric.
    """
    known = _known(summaries, metric)
    table = _table(known, metric)
    infinite = 2.0 * float(table["epsilon"].max()) if table["epsilon"].notna().any() else 1.0
    figure, axes = canvas(
        "What privacy costs",
        "the smaller epsilon, the stronger the guarantee; dotted: no noise. Accuracies on "
        "different data do not compare, their losses do"
        + (f". {TRAPDOOR}" if is_seeded(known) else ""),
        x="epsilon, for the delta beside each line's name",
        y=f"Test {metric_label(metric)}",
        size=(7.0, 4.6),
    )
    handles = []
    for name, look in looks(table["series"]).items():
        own = table[table["series"] == name].sort_values("epsilon")
        private, plain = own[own["epsilon"].notna()], own[own["epsilon"].isna()]
        style: dict[str, Any] = {"color": look.colour, "marker": look.marker, "markersize": 5}
        axes.errorbar(private["epsilon"], private["mean"], yerr=private["bar"], capsize=2, **style)
        for value in plain["mean"]:
            ends = [*private["epsilon"].tail(1), infinite], [*private["mean"].tail(1), value]
            axes.plot(*ends, linestyle=":", **style)
        handles.append(Line2D([], [], label=name, **style))
    axes.set_xscale("log", base=2)
    ticks = [*_ticks(table["epsilon"]), infinite]
    axes.set_xticks(ticks, [*(f"{tick:g}" for tick in ticks[:-1]), "∞"])
    axes.set_ylim(bottom=0.0)
    legend_beside(figure, axes, handles)
    return figure


def _known(summaries: pd.DataFrame, metric: str) -> pd.DataFrame:
    """The completed runs that report the metric, each once."""
    column = f"test.{metric}"
    if column not in summaries:
        raise FedrecError(f"no run reports the test metric {metric}: choose one that they report")
    known = once(summaries[(summaries["status"] == "completed") & summaries[column].notna()])
    if known.empty:
        raise FedrecError(f"no completed run reports the test metric {metric}: run some first")
    return known


def _table(known: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One row per series and epsilon (missing: infinite): mean and bar."""
    series = [
        f"{model}, {dataset}, {users:,} users"
        for model, dataset, users in zip(
            known["model"], known["dataset"], known["num_users"].astype(int), strict=True
        )
    ]
    series = _with_deltas(series, known)
    # Solved noise multipliers miss their target by a hundredth at most.
    epsilon = known["epsilon"].astype(float).round(1)
    groups = known.assign(series=series, epsilon=epsilon).groupby(
        ["series", "epsilon"], dropna=False
    )[f"test.{metric}"]
    table = groups.agg(mean="mean", bar="std").reset_index()
    return table.assign(bar=table["bar"].fillna(0.0))


def _with_deltas(series: list[str], known: pd.DataFrame) -> list[str]:
    """The names of series and the deltas of their guarantees: epsilon says nothing alone."""
    guarded = known["epsilon"].notna().to_numpy()
    deltas = known["delta"] if "delta" in known else known["epsilon"] * float("nan")
    told = pd.DataFrame({"series": series, "delta": deltas.to_numpy()})[guarded].dropna()
    beside = {
        str(name): ", ".join(f"{delta:.2g}" for delta in np.unique(own))
        for name, own in told.groupby("series")["delta"]
    }
    return [f"{name}, delta {beside[name]}" if name in beside else name for name in series]


def _ticks(epsilon: "pd.Series[float]") -> list[float]:
    """The epsilons there are, each once."""
    found: list[float] = np.unique(epsilon.dropna()).tolist()
    return found
