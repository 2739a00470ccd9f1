"""What the clients hold, and how often they took part."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from fedrec_flower.plots.style import COLOURS, FAINT, canvas, legend_beside

_NAMED = 25  # at most so many clients are shown one by one, by name
_BINS = 40
_PARTS = {"num_train": "train", "num_validation": "validation", "num_test": "test"}


def participation(clients: pd.DataFrame) -> Figure:
    """Draw how many clients took part in how many rounds.

    Args:
        clients: the table `clients.csv`, one row per client, with rounds_participated.

    Returns:
        The figure.
    """
    rounds = clients["rounds_participated"].to_numpy(dtype=np.int64)
    figure, axes = canvas(
        "How often clients took part",
        f"{len(rounds):,} clients; {rounds.mean():,.1f} rounds on average, at least "
        f"{rounds.min():,}, at most {rounds.max():,}",
        x="rounds a client took part in",
        y="clients",
    )
    step = max(1, -(-(int(np.ptp(rounds)) + 1) // _BINS))
    edges = np.arange(rounds.min(), rounds.max() + step + 1, step) - 0.5
    axes.hist(rounds, bins=edges.tolist(), color=COLOURS[0], edgecolor="white", linewidth=0.6)
    axes.set_xlim(min(edges[0] - 0.5, rounds.mean() - 5), max(edges[-1] + 0.5, rounds.mean() + 5))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.grid(visible=False, axis="x")
    return figure


def data_partition(clients: pd.DataFrame) -> Figure:
    """Draw how the interactions fell to the clients.

    Few clients stand one by one, with their names and parts; many are drawn by size.

    Args:
        clients: the table `clients.csv`, one row per client, with name, num_users, num_train,
            num_validation and num_test (interactions).

    Returns:
        The figure.
    """
    sizes = clients[list(_PARTS)].sum(axis="columns")
    ordered = clients.assign(size=sizes).sort_values("size", ascending=False, kind="stable")
    many = len(clients) > _NAMED
    figure, axes = canvas(
        "How the data fell to clients",
        f"{len(clients):,} clients, {clients['num_users'].sum():,} users; from {sizes.min():,} to "
        f"{sizes.max():,} interactions a client, median {sizes.median():,.0f}",
        x="clients, largest first" if many else "interactions",
        y="interactions of a client" if many else "",
        size=(6.5, 4.2 if many else 1.6 + 0.28 * len(clients)),
    )
    if many:
        _draw_sizes(axes, ordered["size"].to_numpy())
    else:
        _draw_names(axes, ordered)
        legend_beside(figure, axes, axes.get_legend_handles_labels()[0])
    return figure


def _draw_sizes(axes: Axes, sizes: NDArray[np.int64]) -> None:
    axes.plot(np.arange(1, len(sizes) + 1), sizes, color=COLOURS[0], linewidth=1.8)
    median = float(np.median(sizes))
    axes.axhline(median, color=FAINT, linewidth=1.0, linestyle=":")
    axes.annotate(
        "median", (1, median), xycoords=("axes fraction", "data"), xytext=(-2, 3),
        textcoords="offset points", ha="right", fontsize=9, color=FAINT,
    )  # fmt: skip
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.margins(x=0.02)


def _draw_names(axes: Axes, ordered: pd.DataFrame) -> None:
    names = [
        f"{name} ({users:,} {'user' if users == 1 else 'users'})"
        for name, users in zip(ordered["name"], ordered["num_users"], strict=True)
    ]
    left = np.zeros(len(ordered))
    for colour, (column, part) in zip(COLOURS, _PARTS.items(), strict=False):
        width = ordered[column].to_numpy()
        axes.barh(np.arange(len(ordered)), width, left=left, color=colour, height=0.7, label=part)
        left += width
    axes.set_yticks(range(len(ordered)), names)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.grid(visible=False, axis="y")
