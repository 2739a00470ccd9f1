"""What attacks achieve against which defence, and at what price."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fedrec_flower.plots.naming import datasets
from fedrec_flower.plots.style import panels

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
    _draw(left, 100 * exposure, "{:.1f}", {"cmap": "Reds", "vmin": 0, "vmax": 100})
    highest = float(np.nanmax(ndcg.to_numpy()))
    _draw(right, ndcg, "{:.3f}", {"cmap": "Blues", "vmin": 0, "vmax": highest or 1})
    left.set_yticks(range(len(exposure)), [str(name) for name in exposure.index])
    return figure


def _rows(table: pd.DataFrame) -> "pd.Series[str]":
    share = table["malicious"].map(", {:.0%}".format)
    named: pd.Series[str] = table["attack"] + share.where(table["malicious"] > 0, "")
    return named


def _field(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row an attack, a column a strategy; missing where no run is."""
    fields = [
        table.pivot_table(index="row", columns="strategy", values=name, sort=False)
        for name in ("exposure", value)
    ]
    faced_by_all = fields[0].dropna()  # or whoever faces the worst attacks alone would stand first
    mean = (fields[0] if faced_by_all.empty else faced_by_all).mean()
    return fields[1][list(mean.sort_values(ascending=False, kind="stable").index)]


def _draw(axes: Axes, field: pd.DataFrame, form: str, look: dict[str, Any]) -> None:
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
