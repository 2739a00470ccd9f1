"""What attacks learn under each mechanism: lower bounds of what is leaked."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import TRAPDOOR, is_seeded, once
from fedrec_flower.plots.naming import series_labels
from fedrec_flower.plots.style import FAINT, Look, canvas, legend_beside, looks

_VIEWS = {  # as a summary names them -> what one sees there
    "update": "one client's message",
    "sum": "the sum over a cohort",
    "release": "that sum with noise",
    "sums": "the sums of all rounds",
    "releases": "these with noise",
}
_MODEL = {"": "the published model"}
_COIN = 0.5


def is_spied_on(summaries: pd.DataFrame) -> bool:
    """Whether a completed run tells what the curious learn."""
    return not _spied_on(summaries).empty


def what_the_curious_learn(summaries: pd.DataFrame) -> Figure:
    """Draw the AUC of inference from each view of the messages.

    Every AUC is a lower bound of what is leaked: a stronger attack may find more.

    Points are means over seeds, bars one standard deviation over seeds where there are several.
    A filled point is what a mechanism leaves to those it protects from, a hollow one what it
    keeps from them.

    Args:
        summaries: from `load_summaries`; only completed runs that tell of an inference count.

    Returns:
        The figure: a row per series, those that tell most first.

    Raises:
        FedrecError: if no completed run does.
    """
    known = _spied_on(summaries)
    if known.empty:
        raise FedrecError(
            "no completed run tells what the curious learn: run one with "
            "attack=interaction_inference or attack=membership_inference"
        )
    views = {view: name for view, name in _VIEWS.items() if _column(view) in known} or _MODEL
    merit = known.groupby("series")["attack.auc"].mean().sort_values(ascending=False)
    figure, axes = canvas(
        "What attacks learn: lower bounds",
        "filled: what the mechanism leaves to those it protects from (under central_dp the server "
        "is trusted); bars: one sd over seeds; chance is 0.5; a stronger attack may find more"
        + (f". {TRAPDOOR}" if is_seeded(known) else ""),
        x="AUC over users" if views is _MODEL else "AUC among equally popular items",
        y="",
        size=(7.5, 2.0 + 0.35 * len(merit)),
    )
    axes.axvline(_COIN, color=FAINT, linewidth=1.2)
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


def _spied_on(summaries: pd.DataFrame) -> pd.DataFrame:
    """The runs that tell of an inference, with the series they belong to."""
    if "attack.auc" not in summaries:
        return summaries.iloc[:0]
    known = once(summaries[(summaries["status"] == "completed") & summaries["attack.auc"].notna()])
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
    """Draw one series: a point per view that it has."""
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
