"""How a metric moves over the rounds."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from fedrec_flower.errors import FedrecError
from fedrec_flower.frames import once, repetitions
from fedrec_flower.plots.naming import (
    best_series,
    chance_level,
    datasets,
    lower_is_better,
    metric_label,
    runs_told,
    series_labels,
)
from fedrec_flower.plots.placing import name_ends
from fedrec_flower.plots.style import FAINT, PALE, Look, canvas, legend_beside, looks

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
        f"Convergence{datasets(shown)}", runs_told(shown), x="round", y=metric_label(metric)
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
        f"on validation, {runs_told(shown)}; dots: where the runs end{told}",
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
    name_ends(figure, axes, {label: (end, last[label]) for label in drawn}, drawn)
    return figure


def _validation_means(shown: pd.DataFrame) -> dict[str, "pd.Series[float]"]:
    """The curve of each model that was validated, means over its runs by round."""
    validation = shown[shown["phase"] == "validation"]
    return {
        str(label): series.groupby("round")["value"].mean()
        for label, series in validation.groupby("label")
    }


def _draw_mean(axes: Axes, curve: "pd.Series[float]", look: Look, end: float) -> None:
    """A curve, a mark where it ends, and what leads from there to the last round of all."""
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
    return once(shown.assign(label=series_labels(shown)))


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
    counts, differing = repetitions(shown)
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
