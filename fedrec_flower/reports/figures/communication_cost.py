"""Figures: accuracy against traffic, metrics by user activity, effect of a leaky protocol."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.comparison import measured
from fedrec_flower.reports.figures.style import (
    COLOURS,
    FAINT,
    INK,
    best_series,
    canvas,
    chance_level,
    datasets,
    label_points,
    leaky,
    legend_beside,
    looks,
    lower_is_better,
    metric_label,
)
from fedrec_flower.reports.run_frames import drop_repeated_runs


def has_traffic(summaries: pd.DataFrame) -> bool:
    """Return whether `accuracy_against_megabytes` can draw at least one completed run."""
    return not _federated(summaries).empty


def accuracy_against_megabytes(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric against the traffic of one client in the whole run.

    Bars are those of `comparison`. Runs with one client or without traffic are omitted.

    Args:
        summaries: from `load_summaries`; only completed runs count.
        metric: a test metric, such as `ndcg@10`, taken at the round that validation selected.

    Returns:
        The figure.

    Raises:
        FedrecError: if no completed run of a federation reports the metric.
    """
    return _against_traffic(_federated(summaries), summaries, metric, "sends and receives")


def accuracy_against_upload(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric against the upload of one client in the whole run.

    Arguments, figure and errors are those of `accuracy_against_megabytes`.
    """
    federated = _federated(summaries)
    if not federated.empty:
        up, down = (federated[f"bytes.{way}_per_client"] for way in ("up", "down"))
        federated["megabytes"] *= up / (up + down)
    return _against_traffic(federated, summaries, metric, "sends")


def _against_traffic(
    federated: pd.DataFrame, summaries: pd.DataFrame, metric: str, does: str
) -> Figure:
    if federated.empty:
        raise FedrecError("no run sent anything between clients: choose runs of a federation")
    table = measured(federated, metric)
    table["megabytes"] = federated.groupby("label")["megabytes"].mean()
    figure, axes = canvas(
        f"What accuracy costs{datasets(federated)}",
        _subtitle(table, measured(summaries, metric)),
        x=f"megabytes a client {does} in the whole run",
        y=f"Test {metric_label(metric)}",
        size=(8.0, 5.2),
    )
    drawn = looks(table.index)
    for label, row in table.iterrows():
        look = drawn[str(label)]
        axes.errorbar(
            row["megabytes"], row["mean"], yerr=row["bar"], marker=look.marker, color=look.colour,
            capsize=2, markersize=6, elinewidth=1.0,
            markerfacecolor="white" if row["leaky"] else look.colour,
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_xlim(table["megabytes"].min() / 2.5, table["megabytes"].max() * 2.5)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(y=0.12)
    points = {
        str(label): (row["megabytes"], row["mean"], row["bar"]) for label, row in table.iterrows()
    }
    label_points(figure, axes, points, drawn)
    return figure


def _federated(summaries: pd.DataFrame) -> pd.DataFrame:
    if not {"bytes.total", "num_clients"} <= set(summaries.columns):
        return summaries.head(0)
    sent = summaries.assign(megabytes=summaries["bytes.total"] / summaries["num_clients"] / 1e6)
    return sent[(sent["num_clients"] > 1) & (sent["megabytes"] > 0)]


def _subtitle(table: pd.DataFrame, every: pd.DataFrame) -> str:
    left_out = len(every) - len(table)
    kinds = " or ".join(dict.fromkeys(table["bar_kind"]))
    aside = f"; {left_out} left out, where clients send nothing" if left_out else ""
    return f"at the released round; bars: {kinds}{aside}"


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
    kinds = [f"{group}\nn = {users:,}" for group, users in ticks.itertuples(index=False)]
    axes.set_xticks(ticks.index.to_numpy(int), kinds)
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


_METRICS = {"hr@10_99neg": ("hr", 10), "ndcg@10_99neg": ("ndcg", 10)}
_BARS = ("published", "reproduced, leaky", "honest")
_WIDTH = 0.26


def protocol_leak(
    summaries: pd.DataFrame, published: pd.DataFrame, metric: str = "hr@10_99neg"
) -> Figure:
    """Draw for each model the published figure, ours with the leak and ours without.

    Args:
        summaries: from `load_summaries`; models with completed runs of both protocols count.
        published: a table of `results/published`: model, dataset, metric, k, value, confidence.
        metric: `hr@10_99neg` or `ndcg@10_99neg`, test, at the round that validation selected.

    Returns:
        The figure; bars of ours carry one standard deviation over seeds.

    Raises:
        FedrecError: if no model has runs of both protocols.
    """
    done = drop_repeated_runs(summaries[summaries["status"] == "completed"])
    done = done.assign(leaky=leaky(done), value=done[f"test.{metric}"])
    both = done.groupby("model")["leaky"].nunique()
    models = [str(name) for name in both[both > 1].index]
    if not models:
        raise FedrecError(
            "no model has runs of both protocols: sweep split.negatives=legacy,honest, as "
            "experiment=legacy_pfedrec does"
        )
    figure, axes = canvas(
        f"What the leak is worth{datasets(done)}",
        "the same settings; honest: held-out items may be drawn as training negatives; "
        "bars: sd over seeds",
        x="", y=metric_label(metric), size=(2.6 + 2.2 * len(models), 4.4),
    )  # fmt: skip
    for place, model in enumerate(models):
        runs = done[done["model"] == model]
        ours = [runs.loc[runs["leaky"] == kinds, "value"] for kinds in (True, False)]
        values = [_published(published, model, str(runs["dataset"].iloc[0]), metric)]
        values += [float(each.mean()) for each in ours]
        errors = [0.0, *(float(each.std()) if len(each) > 1 else 0.0 for each in ours)]
        for bar, (value, error) in enumerate(zip(values, errors, strict=True)):
            if pd.isna(value):
                continue
            x = place + (bar - 1) * _WIDTH
            colour = (FAINT, COLOURS[1], COLOURS[0])[bar]
            axes.bar(x, value, 0.9 * _WIDTH, color=colour, label=_BARS[bar] if not place else None)
            axes.errorbar(x, value, yerr=error or None, color=INK, capsize=3)
            axes.annotate(
                f"{value:.3f}", (x, value + error), xytext=(0, 3), textcoords="offset points",
                ha="center", fontsize=9, color=INK,
            )  # fmt: skip
    axes.set_xticks(range(len(models)), models)
    axes.set_xlim(-0.55, len(models) - 0.3)  # room for a label after the last bar
    axes.set_ylim(0, 1.12)
    axes.grid(visible=False, axis="x")
    chance = chance_level(metric)
    if chance is not None:
        axes.axhline(chance, color=FAINT, linewidth=1.0, linestyle=":")
        axes.annotate(
            "chance", (1, chance), xycoords=("axes fraction", "data"), xytext=(-2, 3),
            textcoords="offset points", ha="right", fontsize=9, color=FAINT,
        )  # fmt: skip
    axes.legend(frameon=False, fontsize=9, labelcolor=INK, loc="upper right", ncols=3)
    return figure


def _published(table: pd.DataFrame, model: str, dataset: str, metric: str) -> float:
    """The published figure of a model; NaN where none is known."""
    kind, k = _METRICS[metric]
    found = table[
        (table["model"].str.lower() == model)
        & (table["dataset"] == dataset)
        & (table["metric"] == kind)
        & (table["k"] == k)
        & table["protocol"].str.contains("99 negatives")
        & ~table["confidence"].str.startswith("measured by this project")
    ]
    return float(found["value"].iloc[0]) if len(found) else float("nan")
