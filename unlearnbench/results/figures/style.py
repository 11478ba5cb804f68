"""One style for all figures: sizes, colours, markers and axes.

Figures are made for a column of 3.4 inches, with text of at least 7 points. The colours are those of Okabe and Ito,
which people with colour-blindness can tell apart, and markers repeat the distinction. Nothing here touches pyplot.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.results.records.record import MethodRecord

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise UnlearnBenchError(f'figures need matplotlib: {error}\n  pip install "unlearnbench[report]"') from error

# The widths are in inches: a column of a two-column paper, and its whole page.
COLUMN, PAGE = 3.4, 7.0
HEIGHT = 2.5
DOTS_PER_INCH = 200

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"

SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine has it
    "font.size": 8,
    "text.parse_math": False,  # text from outside may hold dollars
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "legend.frameon": False,
    "legend.handlelength": 1.4,
    "legend.columnspacing": 1.0,
    "legend.labelspacing": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.4,
    "grid.color": "#dddddd",
    "lines.linewidth": 1.2,
    "lines.markersize": 4.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    # Text is drawn as paths so that the picture looks the same everywhere, and the salt makes its ids reproducible.
    "svg.fonttype": "path",
    "svg.hashsalt": "unlearnbench",
}


@dataclass(frozen=True)
class MarkerStyle:
    """How an unlearner looks in every figure.

    Attributes:
        colour: Colour of its lines and markers.
        marker: Marker, as matplotlib names it.
        filled: Whether the marker is filled.
    """

    colour: str
    marker: str
    filled: bool = True

    @property
    def face(self) -> str:
        """Fill colour of the marker."""
        return self.colour if self.filled else "white"

    def line(self, **more: Any) -> dict[str, Any]:
        """Return the arguments of `Axes.plot` for a line with markers."""
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": self.face} | more


ORIGINAL, RETRAINED, ERWP = MarkerStyle(BLACK, "s"), MarkerStyle(BLUE, "D"), MarkerStyle(VERMILION, "o")
# Each pair of the paper's baselines has a colour, and those with distillation have open markers.
LOOKS = {
    "original": ORIGINAL,
    "fdr": RETRAINED,
    "erwp": ERWP,
    "wd": MarkerStyle(GREY, "X"),
    "tslnrc": MarkerStyle(ORANGE, "v"),
    "tslnrc_kd": MarkerStyle(ORANGE, "v", filled=False),
    "tolnrc": MarkerStyle(SKY, "^"),
    "tolnrc_kd": MarkerStyle(SKY, "^", filled=False),
    "folmrcsc": MarkerStyle(GREEN, "<"),
    "folmrcsc_kd": MarkerStyle(GREEN, "<", filled=False),
    "folnrc": MarkerStyle(PURPLE, ">"),
    "folnrc_kd": MarkerStyle(PURPLE, ">", filled=False),
}
# These are for unlearners of other authors, and for an unlearner that a manifest lists more than once.
OTHER_COLOURS = (ORANGE, SKY, GREEN, PURPLE, BLUE, GREY)
OTHER_MARKERS = ("P", "*", "p", "h", "d", "8")

# These are for figures in which lines stand for metrics instead of unlearners.
METRIC_STYLES = {"FAe": MarkerStyle(ORANGE, "v"), "FPAe": MarkerStyle(PURPLE, "^"), "CAne": MarkerStyle(GREEN, "o")}


def looks(methods: Iterable[MethodRecord]) -> dict[str, MarkerStyle]:
    """Return the look of each unlearner by its label; the same unlearners in the same order look the same."""
    found: dict[str, MarkerStyle] = {}
    seen: list[str] = []
    others = 0
    for method in methods:
        known = LOOKS.get(method.name)
        again = seen.count(method.name)
        seen.append(method.name)
        if known is not None and again == 0:
            found[method.label] = known
        elif known is not None:
            marker = OTHER_MARKERS[(again - 1) % len(OTHER_MARKERS)]
            found[method.label] = MarkerStyle(known.colour, marker, filled=again <= len(OTHER_MARKERS))
        else:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            marker = OTHER_MARKERS[(others // len(OTHER_COLOURS) + others) % len(OTHER_MARKERS)]
            found[method.label] = MarkerStyle(colour, marker, filled=others < len(OTHER_COLOURS))
            others += 1
    return found


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to everything that is drawn or saved in the context, and restore matplotlib afterwards."""
    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        # Names from outside may have characters that the font lacks, and such a warning holds them as they are.
        warnings.filterwarnings("ignore", "Glyph")
        yield


def new_figure(
    width: float = COLUMN, height: float = HEIGHT, *, rows: int = 1, columns: int = 1, **more: Any
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, row by row; to be called within `styled`.

    Args:
        width: Width in inches.
        height: Height in inches.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        more: Arguments of `Figure.subplots`, for example `sharey=True`.
    """
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    return figure, list(axes.flat)


def percent_axis(axes: Axes, which: str, label: str, limits: tuple[float, float] | None = None) -> None:
    """Label an axis that shows percent.

    Args:
        axes: Axes to label.
        which: `x` or `y`.
        label: What the axis shows, without the unit.
        limits: Limits in percent; None leaves them to matplotlib.
    """
    axes.set(**{f"{which}label": f"{label} (%)"})
    if limits is not None:
        axes.set(**{f"{which}lim": limits})


def legend_below(figure: Figure, panels: Iterable[Axes], columns: int = 3) -> int:
    """Put one legend of some axes below the figure, with fewer columns if it would be wider than the figure.

    Returns:
        The number of lines of the legend.
    """
    found = (zip(*axes.get_legend_handles_labels(), strict=True) for axes in panels)
    by_label = {label: handle for pairs in found for handle, label in pairs}
    handles, labels = list(by_label.values()), list(by_label)
    while True:
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return math.ceil(len(labels) / columns)
        legend.remove()
        columns -= 1
