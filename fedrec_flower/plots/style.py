"""One look for every figure, and the way to save it.

Figures are plain `Figure` objects: pyplot would keep each one alive and ask for a display.
"""

import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from warnings import catch_warnings, filterwarnings

from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import LogFormatter
from matplotlib.transforms import ScaledTranslation

from fedrec_flower.errors import FedrecError

# Told apart with every common colour blindness. Source: Okabe and Ito 2008, without its yellow,
# which is too faint for a line on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
MARKERS = ("o", "s", "^", "D", "v", "P")
INK = "#262626"
FAINT = "#8C8C8C"
PALE = "#CFCFCF"  # what is there, but not to be looked at


@dataclass(frozen=True, slots=True)
class Look:
    """How one series is drawn, in every figure alike."""

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
    """A figure that shows texts as they are: ids, labels and genres may hold dollar signs.

    Matplotlib would take what stands between two of them for a formula.
    """

    def draw(self, renderer: RendererBase) -> None:
        """See `Figure.draw`."""
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
    """Make an empty figure in the house style.

    Args:
        title: what is shown.
        subtitle: a smaller second line, such as numbers to remember; may be empty.
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
    """Make an empty figure of panels side by side, which share their vertical axis.

    Args:
        title: what is shown.
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
