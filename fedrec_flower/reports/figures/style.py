"""Common style of all figures: canvas, colours, names, label placement and saving.

Figures are plain `Figure` objects: pyplot would keep each one alive and require a display.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import log2
from pathlib import Path
from warnings import catch_warnings, filterwarnings

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.textpath import TextPath
from matplotlib.ticker import LogFormatter
from matplotlib.transforms import Bbox, ScaledTranslation
from numpy.typing import NDArray
from typing_extensions import override

from fedrec_flower.core.errors import FedrecError
from fedrec_flower.evaluation.metrics import registry
from fedrec_flower.reports.run_frames import count_repeats, is_engine

# Distinguishable with every common colour blindness. Source: Okabe and Ito 2008, without yellow,
# which is too pale for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#262626"
FAINT = "#8C8C8C"
PALE = "#CFCFCF"  # for elements in the background


@dataclass(frozen=True, slots=True)
class Look:
    """Colour and marker of one series, equal in all figures."""

    colour: str
    marker: str


def looks(labels: Iterable[str]) -> dict[str, Look]:
    """Give each distinct label its look; the same set of labels always gets the same looks.

    Args:
        labels: labels of series, repeated or not.

    Returns:
        Label to look, in alphabetical order; colours repeat after seven, with another marker.
    """
    return {
        label: Look(COLOURS[n % len(COLOURS)], MARKERS[n // len(COLOURS) % len(MARKERS)])
        for n, label in enumerate(sorted(set(labels)))
    }


class _PlainFigure(Figure):
    """A figure without formulas in texts, because ids, labels and genres may contain dollar signs.

    Matplotlib would parse the text between two dollar signs as a formula.
    """

    @override
    def draw(self, renderer: RendererBase) -> None:
        for artist in self.findobj(Text):
            if isinstance(artist, Text):
                artist.set_parse_math(False)
        for axes in self.axes:
            for axis in (axes.xaxis, axes.yaxis):
                _keep_powers(axis)
        super().draw(renderer)


def _keep_powers(axis: Axis) -> None:
    """Let the powers of a logarithmic axis be formulas."""
    for formatter, ticks in (
        (axis.get_major_formatter(), axis.get_major_ticks()),
        (axis.get_minor_formatter(), axis.get_minor_ticks()),
    ):
        if isinstance(formatter, LogFormatter):
            for tick in ticks:
                tick.label1.set_parse_math(True)


def canvas(
    title: str, subtitle: str, *, x: str, y: str, size: tuple[float, float] = (6.5, 4.2)
) -> tuple[Figure, Axes]:
    """Return an empty figure in the common style.

    Args:
        title: title of the figure.
        subtitle: a smaller second line; may be empty.
        x: label of the horizontal axis, with its unit.
        y: label of the vertical axis, with its unit.
        size: width and height, inches.

    Returns:
        The figure and its axes: a light grid, no box, text in dark grey.
    """
    figure, (axes,) = panels(title, subtitle, xs=[x], ys=[y], size=size)
    return figure, axes


def panels(
    title: str,
    subtitle: str,
    *,
    xs: Sequence[str],
    size: tuple[float, float],
    ys: Sequence[str] = (),
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure of adjacent panels with a common vertical axis.

    Args:
        title: title of the figure.
        subtitle: a smaller second line; may be empty.
        xs: label of the horizontal axis of each panel, with its unit.
        size: width and height of the whole, inches.
        ys: label of the vertical axis of each panel, with its unit; then each has its own.

    Returns:
        The figure and the axes of each panel, as in `canvas`.
    """
    figure = _PlainFigure(figsize=size, layout="constrained", facecolor="white")
    every: list[Axes] = list(figure.subplots(1, len(xs), sharey=not ys, squeeze=False)[0])
    folded = textwrap.fill(subtitle, width=int(size[0] * 14))
    # The blank lines keep room for the subtitle, which needs another size and colour.
    blank = "\n" * len(folded.splitlines())
    figure.suptitle(
        title + blank, x=0.01, ha="left", va="top", fontsize=12, fontweight="bold",
        color=INK,
    )  # fmt: skip
    below = ScaledTranslation(0, -22 / 72, figure.dpi_scale_trans)
    figure.text(
        0.01, 1, folded, ha="left", va="top", fontsize=9, color="#6B6B6B",
        transform=figure.transFigure + below,
    )  # fmt: skip
    for axes, x in zip(every, xs, strict=True):
        axes.set_xlabel(x, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(FAINT)
        axes.tick_params(which="both", color=FAINT, labelcolor=INK, labelsize=9)
        axes.grid(color="#E6E6E6", linewidth=0.8)
        axes.set_axisbelow(True)
    for axes, y in zip(every, ys, strict=False):  # none, or one each
        axes.set_ylabel(y, color=INK)
    return figure, every


def legend_beside(figure: Figure, axes: Axes, handles: Sequence[Artist]) -> None:
    """Put a legend to the right of the axes and grow the figure by it, so it covers no data."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    width, height = figure.get_size_inches()
    # Inches of a letter, a key and a line at this font size.
    figure.set_size_inches(width + 0.075 * longest + 0.4, max(height, 0.2 * len(handles) + 1.2))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.02), frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip


def legend_below(figure: Figure, handles: Sequence[Artist]) -> None:
    """Put a legend in one line under all axes and grow the figure by it."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.3)
    figure.legend(
        handles=handles, loc="outside lower right", ncols=len(handles), frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip


def save(figure: Figure, folder: Path, name: str) -> tuple[Path, Path]:
    """Write a figure as PNG (150 dots per inch) and SVG; the same figure gives the same bytes.

    Args:
        figure: the figure.
        folder: where to; made if missing.
        name: the files' name without ending.

    Returns:
        The paths of the PNG and of the SVG.

    Raises:
        FedrecError: if a file cannot be written.
    """
    png, svg = folder / f"{name}.png", folder / f"{name}.svg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Otherwise ids in the SVG are random and its metadata hold the date.
        with rc_context({"svg.hashsalt": name}), catch_warnings():
            # A name in a script that the font lacks is drawn as boxes, without a word per letter.
            filterwarnings("ignore", message="Glyph .* missing from font")
            figure.savefig(png, dpi=150)
            figure.savefig(svg, metadata={"Date": None})
    except OSError as error:
        raise FedrecError(
            f"figure {name} could not be written to {folder} ({error.strerror or error}): free "
            "some disk space or choose a folder you may write to"
        ) from error
    return png, svg


_RATING_METRICS = {"rmse": "RMSE (rating units)", "mae": "MAE (rating units)"}


def metric_label(metric: str) -> str:
    """Write a metric as a reader expects it: `ndcg@10_99neg` as "NDCG@10 (99 negatives)"."""
    if metric in _RATING_METRICS:
        return _RATING_METRICS[metric]
    name, at, rest = metric.removesuffix("_99neg").partition("@")
    candidates = "99 negatives" if metric.endswith("_99neg") else "full ranking"
    return f"{registry.metric_label(name)}{at}{rest} ({candidates})"


def lower_is_better(metric: str) -> bool:
    """Return whether a metric is an error, so that lower is better."""
    return metric in _RATING_METRICS


def best_series(values: "pd.Series[float]", metric: str) -> list[str]:
    """Choose the best series, as many as there are colours.

    Args:
        values: of the metric, by label.
        metric: its name decides whether higher is better.

    Returns:
        The labels, best first; of equal ones the earlier.
    """
    ordered = values.sort_values(ascending=lower_is_better(metric), kind="stable")
    return [str(label) for label in ordered.index[: len(COLOURS)]]


def chance_level(metric: str) -> float | None:
    """Return the expected metric of random scores with one held-out item among 99 negatives.

    Args:
        metric: a metric's name, such as `hr@10_99neg`.

    Returns:
        k / 100 for hit rate and recall, the discounts of the first k ranks / 100 for NDCG;
        None where chance depends on the data.
    """
    match = re.fullmatch(r"(hr|recall|ndcg)@(\d+)_99neg", metric)
    if match is None:
        return None
    ranks = range(1, int(match[2]) + 1)
    return sum(1 / log2(rank + 1) if match[1] == "ndcg" else 1.0 for rank in ranks) / 100


def series_labels(frame: pd.DataFrame) -> "pd.Series[str]":
    """Return the name of each row's series.

    Args:
        frame: one of the frames of `fedrec_flower.reports`; or one run's own table, which
            without a `label` is one series without a name.

    Returns:
        One label per row.
    """
    return _column(frame, "label")


def leaky(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Return a mask of the rows of the leaky protocol."""
    return _column(frame, "protocol").str.contains("legacy")


def federated(frame: pd.DataFrame) -> "pd.Series[bool]":
    """Return a mask of the rows of federations, without references such as centralised runs."""
    if "federation" not in frame:
        return pd.Series(data=True, index=frame.index)
    return frame["federation"].map(is_engine)


def datasets(frame: pd.DataFrame) -> str:
    """Return the names of the data for the end of a title: " on ml-100k"."""
    names = sorted(set(_column(frame, "dataset")) - {""})
    return f" on {', '.join(names)}" if names else ""


def runs_caption(frame: pd.DataFrame) -> str:
    """Return a caption with the number of runs per point: "means over 1 to 3 seeds"."""
    counts, differing = count_repeats(frame)
    fewest, most = int(counts.min()), int(counts.max())
    if most == 1:
        return "one seed"
    return f"means over {most if fewest == most else f'{fewest} to {most}'} {differing}"


def _column(frame: pd.DataFrame, name: str) -> "pd.Series[str]":
    if name not in frame:
        return pd.Series("", index=frame.index, dtype="str")
    return frame[name].fillna("").astype("str")


_POINTS = 8.5  # size of the letters
_HIGH = 1.2  # of a line, in sizes
_GAP = 4.0  # points between a name and the next in its line
_NEAR = 9.0  # points from the middle of a mark to its name; a name further off gets a line
_DISTANCES = (_NEAR, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0)
_DIRECTIONS = np.deg2rad([0, 180, 35, -35, 145, -145, 90, -90])


def spread(wanted: NDArray[np.float64], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Spread heights to a minimum distance with the least change, in their order.

    Args:
        wanted: (n,), preferred heights.
        gap: the minimum distance.
        low: lower limit.
        high: upper limit, if there is room for all.

    Returns:
        (n,), in the order of `wanted`.

    Source: least squares with gaps is isotonic regression of the heights minus the gaps.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    free = isotonic_regression(wanted[order] - steps).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(free, low, max(low, high - steps[-1])) + steps
    return placed


def label_line_ends(
    figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]], looks: dict[str, Look]
) -> None:
    """Write names in a column right of the axes, each joined to the end of its line.

    Args:
        figure: the figure, of the size it will have.
        axes: axes with their final limits.
        ends: name to the last point of its line, data units.
        looks: name to its look.
    """
    low, high = axes.get_ylim()
    heights = np.array([(y - low) / (high - low) for _, y in ends.values()])
    inches = figure.get_size_inches()[1] - 1.2  # space of title and labels
    placed = spread(heights, _POINTS * _HIGH / 72 / inches, 0.0, 1.0)
    for (name, end), height in zip(ends.items(), placed, strict=True):
        axes.annotate(
            name, end, xytext=(1.06, height), textcoords="axes fraction", va="center",
            fontsize=_POINTS, color=looks[name].colour, annotation_clip=False,
            arrowprops={
                "arrowstyle": "-", "color": looks[name].colour, "linewidth": 0.6, "alpha": 0.6,
                "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5),
            },
        )  # fmt: skip


def label_points(
    figure: Figure, axes: Axes, points: dict[str, tuple[float, float, float]],
    looks: dict[str, Look],
) -> None:  # fmt: skip
    """Label points so that no label covers a point, a bar or another label.

    Args:
        figure: the figure with all other elements.
        axes: axes with their final limits.
        points: name to x, y and half the length of its vertical bar, data units.
        looks: name to its look.
    """
    figure.draw_without_rendering()  # the layout determines the size of a data unit
    scale = 72 / figure.dpi
    window = axes.get_window_extent()
    room = Bbox(window.get_points() * scale)
    bars = [_bar(axes, x, y, half, scale) for x, y, half in points.values()]
    taken = list(bars)
    for (name, (x, y, _)), bar in zip(points.items(), bars, strict=True):
        middle = np.array([(bar.x0 + bar.x1) / 2, axes.transData.transform((x, y))[1] * scale])
        place = _free_place(middle, name, room, taken)
        taken.append(place)
        corner = np.array([place.x0, (place.y0 + place.y1) / 2])
        far = np.hypot(*np.clip(middle, place.min, place.max) - middle) > _NEAR
        axes.annotate(
            name, (x, y), xytext=tuple(corner - middle), textcoords="offset points", va="center",
            fontsize=_POINTS, color=looks[name].colour,
            arrowprops={"arrowstyle": "-", "color": looks[name].colour, "linewidth": 0.6}
            if far else None,
        )  # fmt: skip


def _bar(axes: Axes, x: float, y: float, half: float, scale: float) -> Bbox:
    """Return the area of a point and its bar, in points."""
    (left, low), (_, high) = axes.transData.transform([(x, y - half), (x, y + half)]) * scale
    return Bbox([[left - 4, low - 4], [left + 4, high + 4]])


def _free_place(middle: NDArray[np.float64], name: str, room: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """Return the nearest free place of a label, or the place with the least overlap."""
    places = list(_places(middle, name))
    inside = [p for p in places if np.all(p.min >= room.min) and np.all(p.max <= room.max)]
    return min(
        inside or places, key=lambda place: place.count_overlaps(taken)
    )  # the first of equals


def _places(middle: NDArray[np.float64], name: str) -> Iterator[Bbox]:
    width = TextPath((0, 0), name.replace("$", r"\$"), size=_POINTS).get_extents().width + _GAP
    height = _POINTS * _HIGH
    for distance in _DISTANCES:
        for direction in _DIRECTIONS:
            across, up = np.cos(direction), np.sin(direction)
            x = middle[0] + distance * across + width * (np.sign(round(across, 6)) - 1) / 2
            y = middle[1] + distance * up + height * (np.sign(round(up, 6)) - 1) / 2
            yield Bbox.from_bounds(x, y, width, height)
