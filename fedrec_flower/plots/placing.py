"""Names beside what they name, none over another."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.textpath import TextPath
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from fedrec_flower.plots.style import Look

_POINTS = 8.5  # size of the letters
_HIGH = 1.2  # of a line, in sizes
_GAP = 4.0  # points between a name and the next in its line
_NEAR = 9.0  # points from the middle of a mark to its name; a name further off gets a line
_DISTANCES = (_NEAR, 16.0, 26.0, 38.0, 52.0, 68.0, 86.0)
_DIRECTIONS = np.deg2rad([0, 180, 35, -35, 145, -145, 90, -90])


def spread(wanted: NDArray[np.float64], gap: float, low: float, high: float) -> NDArray[np.float64]:
    """Move heights apart, as little as possible and keeping their order.

    Args:
        wanted: (n,), where each would like to be.
        gap: the least distance between two of them.
        low: none may be lower.
        high: none may be higher, if there is room for all.

    Returns:
        (n,), in the order of `wanted`.

    Source: least squares with a gap is isotonic regression of what lies beyond the gaps.
    """
    from scipy.optimize import isotonic_regression

    order = np.argsort(wanted, kind="stable")
    steps = gap * np.arange(len(wanted))
    free = isotonic_regression(wanted[order] - steps).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(free, low, max(low, high - steps[-1])) + steps
    return placed


def name_ends(
    figure: Figure, axes: Axes, ends: dict[str, tuple[float, float]], looks: dict[str, Look]
) -> None:
    """Write names in a column right of the axes, each joined to the end of its line.

    Args:
        figure: the figure, of the size it will have.
        axes: with their limits as they will be.
        ends: name to the last point of its line, data units.
        looks: name to its look.
    """
    low, high = axes.get_ylim()
    heights = np.array([(y - low) / (high - low) for _, y in ends.values()])
    inches = figure.get_size_inches()[1] - 1.2  # what title and labels take
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


def name_points(
    figure: Figure, axes: Axes, points: dict[str, tuple[float, float, float]],
    looks: dict[str, Look],
) -> None:  # fmt: skip
    """Write names beside points where they hide no point, no bar and no other name.

    Args:
        figure: the figure, all else drawn.
        axes: with their limits as they will be.
        points: name to x, y and half the length of its vertical bar, data units.
        looks: name to its look.
    """
    figure.draw_without_rendering()  # the layout decides where a data unit is
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
    """What a point and its bar cover, in points."""
    (left, low), (_, high) = axes.transData.transform([(x, y - half), (x, y + half)]) * scale
    return Bbox([[left - 4, low - 4], [left + 4, high + 4]])


def _free_place(middle: NDArray[np.float64], name: str, room: Bbox, taken: Sequence[Bbox]) -> Bbox:
    """The nearest place for a name that is free; the one most free if none is."""
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
