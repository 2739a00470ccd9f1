"""Figures: accuracy against epsilon, and the success of inference attacks per mechanism."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.style import (
    FAINT,
    Look,
    canvas,
    legend_beside,
    looks,
    metric_label,
    series_labels,
)
from fedrec_flower.reports.run_frames import SEEDED_CAVEAT, drop_repeated_runs, is_seeded


def privacy_utility(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric against epsilon, one line per model and population.

    Points are means over seeds, bars one standard deviation over several seeds. Runs without noise
    (infinite epsilon) are on the right; a dotted line leads to them.

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
        + (f". {SEEDED_CAVEAT}" if is_seeded(known) else ""),
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
    """Return the completed runs that report the metric, without repetitions."""
    column = f"test.{metric}"
    if column not in summaries:
        raise FedrecError(f"no run reports the test metric {metric}: choose one that they report")
    known = _completed(summaries, column)
    if known.empty:
        raise FedrecError(f"no completed run reports the test metric {metric}: run some first")
    return known


def _completed(summaries: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the completed runs with a value in the column, without repetitions."""
    completed = summaries[summaries["status"] == "completed"]
    return drop_repeated_runs(completed[completed[column].notna()])


def _table(known: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return mean and bar, one row per series and epsilon (missing: infinite)."""
    series = [
        f"{model}, {dataset}, {users:,} users"
        for model, dataset, users in zip(
            known["model"], known["dataset"], known["num_users"].astype(int), strict=True
        )
    ]
    series = _with_deltas(series, known)
    # Epsilons of solved noise multipliers are within 0.01 of their target.
    epsilon = known["epsilon"].astype(float).round(1)
    groups = known.assign(series=series, epsilon=epsilon).groupby(
        ["series", "epsilon"], dropna=False
    )[f"test.{metric}"]
    table = groups.agg(mean="mean", bar="std").reset_index()
    return table.assign(bar=table["bar"].fillna(0.0))


def _with_deltas(series: list[str], known: pd.DataFrame) -> list[str]:
    """Return the series names with the deltas of their guarantees."""
    guarded = known["epsilon"].notna().to_numpy()
    deltas = known["delta"] if "delta" in known else known["epsilon"] * float("nan")
    guaranteed = pd.DataFrame({"series": series, "delta": deltas.to_numpy()})[guarded].dropna()
    delta_of = {
        str(name): ", ".join(f"{delta:.2g}" for delta in np.unique(own))
        for name, own in guaranteed.groupby("series")["delta"]
    }
    return [f"{name}, delta {delta_of[name]}" if name in delta_of else name for name in series]


def _ticks(epsilon: "pd.Series[float]") -> list[float]:
    """Return the distinct epsilons."""
    found: list[float] = np.unique(epsilon.dropna()).tolist()
    return found


_VIEWS = {  # name of an observation in a summary -> its description
    "update": "one client's message",
    "sum": "the sum over a cohort",
    "release": "that sum with noise",
    "sums": "the sums of all rounds",
    "releases": "these with noise",
}
_MODEL = {"": "the published model"}
_CHANCE = 0.5


def has_inference_results(summaries: pd.DataFrame) -> bool:
    """Return whether a completed run has results of an inference attack."""
    return not _with_inference(summaries).empty


def privacy_leakage(summaries: pd.DataFrame) -> Figure:
    """Draw the AUC of inference from each view of the messages.

    Every AUC is a lower bound of the leakage: a stronger attack may find more.

    Points are means over seeds, bars one standard deviation over several seeds. A filled point is
    an observation that remains with the adversary under the mechanism; a hollow point is an
    observation that the mechanism withholds.

    Args:
        summaries: from `load_summaries`; only completed runs with an inference attack count.

    Returns:
        The figure: one row per series, sorted by AUC.

    Raises:
        FedrecError: if there is no such run.
    """
    known = _with_inference(summaries)
    if known.empty:
        raise FedrecError(
            "no completed run has an inference attack: run one with "
            "attack=interaction_inference or attack=membership_inference"
        )
    views = {view: name for view, name in _VIEWS.items() if _column(view) in known} or _MODEL
    merit = known.groupby("series")["attack.auc"].mean().sort_values(ascending=False)
    figure, axes = canvas(
        "What attacks learn: lower bounds",
        "filled: observations that remain with the adversary (under central_dp the server "
        "is trusted); bars: one sd over seeds; chance is 0.5; a stronger attack may find more"
        + (f". {SEEDED_CAVEAT}" if is_seeded(known) else ""),
        x="AUC over users" if views is _MODEL else "AUC among equally popular items",
        y="",
        size=(7.5, 2.0 + 0.35 * len(merit)),
    )
    axes.axvline(_CHANCE, color=FAINT, linewidth=1.2)
    drawn = looks(views.values())
    for place, series in enumerate(merit.index):
        _draw_row(axes, place, known[known["series"] == series], views, drawn)
    axes.set_yticks(range(len(merit)), [str(series) for series in merit.index])
    axes.set_ylim(len(merit) - 0.5, -0.5)
    keys = [
        Line2D([], [], label=name, color=look.colour, marker=look.marker, linestyle="none")
        for name, look in ((name, drawn[name]) for name in views.values())
    ]
    legend_beside(figure, axes, keys)
    return figure


def _with_inference(summaries: pd.DataFrame) -> pd.DataFrame:
    """Return the runs with an inference attack, and their series."""
    if "attack.auc" not in summaries:
        return summaries.iloc[:0]
    known = _completed(summaries, "attack.auc")
    return known.assign(series=series_labels(known))


def _column(view: str) -> str:
    return f"attack.{view}/auc" if view else "attack.auc"


def _draw_row(
    axes: Axes,
    place: int,
    runs: pd.DataFrame,
    views: Mapping[str, str],
    drawn: Mapping[str, Look],
) -> None:
    """Draw one series: one point per observation."""
    exposed = runs["attack.exposed"].iloc[0] if "attack.exposed" in runs else ""
    for view, name in views.items():
        values, look = runs[_column(view)].dropna(), drawn[name]
        if values.empty:
            continue
        axes.errorbar(
            values.mean(), place, xerr=values.std() if len(values) > 1 else 0.0, capsize=2,
            color=look.colour, marker=look.marker, markersize=7,
            markerfacecolor=look.colour if view == exposed else "white",
            zorder=3 if view == exposed else 2,
        )  # fmt: skip
