"""Figures of runs: convergence over rounds, data per client and participation."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.reports.figures.style import (
    COLOURS,
    FAINT,
    PALE,
    Look,
    best_series,
    canvas,
    chance_level,
    datasets,
    label_line_ends,
    legend_beside,
    looks,
    lower_is_better,
    metric_label,
    runs_caption,
    series_labels,
)
from fedrec_flower.reports.run_frames import count_repeats, drop_repeated_runs

_FEW = 6  # series; the lines of more would hide each other's bands


def convergence(runs: pd.DataFrame, metric: str) -> Figure:
    """Draw a metric against rounds, one colour per model.

    Validation is a solid line and test a thin dashed one, means over seeds (or folds); the band is
    one standard deviation over them of validation. A ring stands at the round that validation
    selected, one per run.

    Of more than six models only the means of validation are drawn, those of the seven that end
    best in colour, with the models' names at their ends, and all others in grey. A dot is where
    the runs of a model end, one round for a model that is solved in one; a dotted line leads on to
    its name.

    Args:
        runs: from `load_runs`.
        metric: a metric of the validation or test phase, such as `ndcg@10`.

    Returns:
        The figure.

    Raises:
        FedrecError: if no run reports the metric.
    """
    shown = _measurements(runs, metric)
    return (_many if shown["label"].nunique() > _FEW else _few)(shown, metric)


def _few(shown: pd.DataFrame, metric: str) -> Figure:
    drawn = looks(shown["label"])
    figure, axes = canvas(
        f"Convergence{datasets(shown)}", runs_caption(shown), x="round", y=metric_label(metric)
    )
    for label, look in drawn.items():
        _draw_series(axes, shown[shown["label"] == label], look)
    _scale(axes, metric)
    handles = [_key(look.colour, label, marker=_line_marker(look)) for label, look in drawn.items()]
    legend_beside(figure, axes, [*handles, *_explanations(shown, metric)])
    return figure


def _many(shown: pd.DataFrame, metric: str) -> Figure:
    means = _validation_means(shown)
    last = pd.Series({label: curve.iloc[-1] for label, curve in means.items()}, dtype=float)
    drawn = looks(best_series(last, metric))
    told = f"; the {len(drawn)} best of {len(means)} in colour" if len(drawn) < len(means) else ""
    figure, axes = canvas(
        f"Convergence{datasets(shown)}",
        f"on validation, {runs_caption(shown)}; dots: where the runs end{told}",
        x="round",
        y=f"Validation {metric_label(metric)}",
        size=(9.0, 4.8),
    )
    for label, curve in means.items():
        if label not in drawn:
            axes.plot(curve.index, curve, color=PALE, linewidth=0.8, zorder=1)
    end = float(shown["round"].max())
    for label, look in drawn.items():
        _draw_mean(axes, means[label], look, end)
    _scale(axes, metric)
    label_line_ends(figure, axes, {label: (end, last[label]) for label in drawn}, drawn)
    return figure


def _validation_means(shown: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """The curve of each model that was validated, means over its runs by round."""
    validation = shown[shown["phase"] == "validation"]
    return {
        str(label): series.groupby("round")["value"].mean()
        for label, series in validation.groupby("label")
    }


def _draw_mean(axes: Axes, curve: "pd.Series[float]", look: Look, end: float) -> None:
    """Draw a curve, a mark at its end, and a dotted line from there to the last round."""
    axes.plot(curve.index, curve, color=look.colour, linewidth=1.4)
    ended, value = curve.index[-1], curve.iloc[-1]
    axes.plot(ended, value, color=look.colour, marker=look.marker, markersize=5)
    axes.plot([ended, end], [value] * 2, color=look.colour, linewidth=1.0, linestyle=":")


def _measurements(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    evaluated = runs[runs["phase"].isin(["validation", "test"])]
    shown = evaluated[evaluated["metric"] == metric]
    if shown.empty:
        known = ", ".join(sorted(set(evaluated["metric"]))) or "none so far"
        raise FedrecError(f"no run reports {metric}: choose one of the metrics there are ({known})")
    return drop_repeated_runs(shown.assign(label=series_labels(shown)))


def _draw_series(axes: Axes, series: pd.DataFrame, look: Look) -> None:
    validation, test = (
        series[series["phase"] == phase].groupby("round")["value"].agg(["mean", "std"])
        for phase in ("validation", "test")
    )
    axes.plot(test.index, test["mean"], color=look.colour, linewidth=1.0, linestyle=(0, (4, 2)))
    axes.plot(
        validation.index,
        validation["mean"],
        color=look.colour,
        linewidth=1.8,
        marker=_line_marker(look),
        markersize=5,
        markevery=0.12,
    )
    low, high = validation["mean"] - validation["std"], validation["mean"] + validation["std"]
    if validation["std"].notna().any():
        axes.fill_between(validation.index, low, high, color=look.colour, alpha=0.15, linewidth=0)
    selected = _selected(series)
    axes.plot(
        selected["round"],
        selected["value"],
        linestyle="none",
        marker="o",
        markersize=7,
        markerfacecolor="white",
        markeredgecolor=look.colour,
        markeredgewidth=1.6,
        zorder=3,
    )


def _selected(shown: pd.DataFrame) -> pd.DataFrame:
    chosen = shown["round"] == shown["selected_round"].astype("float64")
    return shown[chosen & (shown["phase"] == "validation")]


def _scale(axes: Axes, metric: str) -> None:
    chance = chance_level(metric)
    if chance is not None:
        axes.axhline(chance, color=FAINT, linewidth=1.0, linestyle=":")
    if not lower_is_better(metric):
        axes.set_ylim(bottom=0)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))


def _explanations(shown: pd.DataFrame, metric: str) -> list[Line2D | Patch]:
    phases = set(shown["phase"])
    keys: list[Line2D | Patch] = []
    if "validation" in phases:
        keys.append(_key(FAINT, "validation"))
    if "test" in phases:
        keys.append(_key(FAINT, "test", linewidth=1.0, linestyle=(0, (4, 2))))
    counts, differing = count_repeats(shown)
    if counts.max() > 1:
        keys.append(Patch(color=FAINT, alpha=0.25, linewidth=0, label=f"±1 sd over {differing}"))
    if len(_selected(shown)):
        keys.append(
            _key(FAINT, "selected round", linestyle="none", marker="o", markerfacecolor="white")
        )
    if chance_level(metric) is not None:
        keys.append(_key(FAINT, "chance", linewidth=1.0, linestyle=":"))
    return keys


def _key(colour: str, label: str, **drawn: object) -> Line2D:
    line = Line2D([], [], color=colour, linewidth=1.8, label=label)
    line.set(**drawn)
    return line


def _line_marker(look: Look) -> str:
    # The first seven series differ by colour alone; later ones need a shape as well.
    return "" if look.marker == "o" else look.marker


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
