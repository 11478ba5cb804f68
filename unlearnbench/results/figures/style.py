"""One style for all figures: sizes, colours, markers, axes.

Figures are made for a column of 3.4 inches: text is 7 points and more. Colours are those of Okabe and Ito, which people
with colour-blindness can tell apart; markers say the same a second time. Nothing here touches pyplot.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from unlearnbench.errors import UnlearnBenchError
from unlearnbench.results.record import MethodRecord

try:
    import matplotlib
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise UnlearnBenchError(f'figures need matplotlib: {error}\n  pip install "unlearnbench[report]"') from error

# Inches: a column of a two-column paper, and the whole page.
COLUMN, PAGE = 3.4, 7.0
HEIGHT = 2.5
DOTS_PER_INCH = 200

BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
YELLOW, BLUE, VERMILION, PURPLE = "#F0E442", "#0072B2", "#D55E00", "#CC79A7"
GREY = "#767676"
# For series that stand for no method, in this order; yellow is too faint for lines on white.
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, BLACK, GREY)

SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that every machine has it
    "font.size": 8,
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
    # Paths and not text: the same picture wherever it is opened. The salt makes the ids in it the same every time.
    "svg.fonttype": "path",
    "svg.hashsalt": "unlearnbench",
}


@dataclass(frozen=True)
class Look:
    """How a method looks in every figure.

    Attributes:
        colour: Its colour.
        marker: Its marker, as matplotlib names them.
        filled: Whether the marker is filled.
    """

    colour: str
    marker: str
    filled: bool = True

    @property
    def face(self) -> str:
        """What fills the marker."""
        return self.colour if self.filled else "white"

    def line(self, **more: Any) -> dict[str, Any]:
        """Return arguments of `Axes.plot` for a line with markers."""
        return {"color": self.colour, "marker": self.marker, "markerfacecolor": self.face} | more


ORIGINAL, RETRAINED, ERWP = Look(BLACK, "s"), Look(BLUE, "D"), Look(VERMILION, "o")
# The paper's baselines: a colour for each pair, open markers for those with distillation.
LOOKS = {
    "original": ORIGINAL,
    "fdr": RETRAINED,
    "erwp": ERWP,
    "wd": Look(GREY, "X"),
    "tslnrc": Look(ORANGE, "v"),
    "tslnrc_kd": Look(ORANGE, "v", filled=False),
    "tolnrc": Look(SKY, "^"),
    "tolnrc_kd": Look(SKY, "^", filled=False),
    "folmrcsc": Look(GREEN, "<"),
    "folmrcsc_kd": Look(GREEN, "<", filled=False),
    "folnrc": Look(PURPLE, ">"),
    "folnrc_kd": Look(PURPLE, ">", filled=False),
}
# For methods of others, and for a method that stands in a manifest more than once.
OTHER_COLOURS = (ORANGE, SKY, GREEN, PURPLE, BLUE, GREY)
OTHER_MARKERS = ("P", "*", "p", "h", "d", "8")

# Where lines stand for metrics and not for methods.
METRIC_LOOKS = {"FAe": Look(ORANGE, "v"), "FPAe": Look(PURPLE, "^"), "CAne": Look(GREEN, "o")}


def looks(methods: Iterable[MethodRecord]) -> dict[str, Look]:
    """Return the look of each method by its label; the same methods in the same order look the same."""
    found: dict[str, Look] = {}
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
            found[method.label] = Look(known.colour, marker, filled=again <= len(OTHER_MARKERS))
        else:
            colour = OTHER_COLOURS[others % len(OTHER_COLOURS)]
            marker = OTHER_MARKERS[(others // len(OTHER_COLOURS) + others) % len(OTHER_MARKERS)]
            found[method.label] = Look(colour, marker, filled=others < len(OTHER_COLOURS))
            others += 1
    return found


@contextmanager
def styled() -> Iterator[None]:
    """Give everything that is drawn or saved in the context the style; outside of it matplotlib is as it was."""
    with matplotlib.rc_context(SETTINGS):
        yield


def new_figure(
    width: float = COLUMN, height: float = HEIGHT, *, rows: int = 1, columns: int = 1, **more: Any
) -> tuple[Figure, list[Axes]]:
    """Return an empty figure and its axes, row by row. To be called within `styled`.

    Args:
        width: In inches.
        height: In inches.
        rows: Rows of axes.
        columns: Columns of axes.
        more: Arguments of `Figure.subplots`, for example `sharey=True`.
    """
    figure = Figure(figsize=(width, height), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, **more)
    return figure, list(axes.flat)


def percent_axis(axes: Axes, which: str, label: str, limits: tuple[float, float] | None = None) -> None:
    """Label an axis that shows percent.

    Args:
        axes: The axes.
        which: `x` or `y`.
        label: What it shows, without the unit.
        limits: In percent; matplotlib's own if None.
    """
    axes.set(**{f"{which}label": f"{label} (%)"})
    if limits is not None:
        axes.set(**{f"{which}lim": limits})


def legend_below(figure: Figure, axes: Axes, columns: int = 3) -> int:
    """Put the legend of one of the axes below the whole figure, in fewer columns if it would be wider than that.

    Returns:
        How many lines it has.
    """
    handles, labels = axes.get_legend_handles_labels()
    while True:
        legend = figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            return math.ceil(len(labels) / columns)
        legend.remove()
        columns -= 1
