"""What accuracy costs in traffic."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from fedrec_flower.errors import FedrecError
from fedrec_flower.plots.models import measured
from fedrec_flower.plots.naming import datasets, metric_label
from fedrec_flower.plots.placing import name_points
from fedrec_flower.plots.style import canvas, looks


def sends_anything(summaries: pd.DataFrame) -> bool:
    """Tell whether any completed run is one that `accuracy_against_megabytes` can draw."""
    return not _federated(summaries).empty


def accuracy_against_megabytes(summaries: pd.DataFrame, metric: str) -> Figure:
    """Draw a test metric against what a client sends and receives in the whole run.

    Bars are those of `comparison`. What has but one client, or sends nothing, is left out: it is
    no federation.

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
    """Draw a test metric against what a client sends in the whole run: what compression lessens.

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
    name_points(figure, axes, points, drawn)
    return figure


def _federated(summaries: pd.DataFrame) -> pd.DataFrame:
    if not {"bytes.total", "num_clients"} <= set(summaries.columns):
        return summaries.head(0)
    sent = summaries.assign(megabytes=summaries["bytes.total"] / summaries["num_clients"] / 1e6)
    return sent[(sent["num_clients"] > 1) & (sent["megabytes"] > 0)]


def _subtitle(table: pd.DataFrame, every: pd.DataFrame) -> str:
    left_out = len(every) - len(table)
    told = " or ".join(dict.fromkeys(table["told"]))
    aside = f"; {left_out} left out, where clients send nothing" if left_out else ""
    return f"at the released round; bars: {told}{aside}"
