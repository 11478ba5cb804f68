"""What is kept against what is forgotten: CAne against FAe and against FPAe, for all unlearners of a problem."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import BLUE, GREY, MarkerStyle, legend_below, looks, new_figure, percent_axis
from unlearnbench.results.judgement import MOST_LOSS
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name
from unlearnbench.terms import SHORT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


X_METRICS = ("FAe", "FPAe")
# This part of the y axis is left to values far below the gate.
SQUEEZED = 0.25
_MEANING = (
    "means over seeds, each seed faint. The dashed line is FDR's FPAe, the dotted one the CAne that a method must keep "
    f"(Original's, less {100 * MOST_LOSS:g} points); far below it, where a method lies there, the axis is squeezed and "
    "shaded."
)


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each problem for which an unlearner has a result."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            shown = [row for row in rows if row.values(SHORT["CAne"])]
            if any(not row.is_reference for row in shown):
                yield _drawing(f"{experiment.stem(rows)}-trade-off", experiment.caption(rows), shown)


def one_for_each_network(source: FigureData) -> Iterator[Drawing]:
    """Yield one picture for each network on each data set, with a plot of each of its problems.

    A problem is drawn from the manifest with the most unlearners on it.
    """
    largest: dict[str, tuple[Row, ...]] = {}
    for experiment in source.experiments:
        for rows in experiment.problems:
            shown = tuple(row for row in rows if row.values(SHORT["CAne"]))
            known = largest.get(rows[0].problem.id, ())
            if any(not row.is_reference for row in shown) and _methods(shown) > _methods(known):
                largest[rows[0].problem.id] = shown
    networks: dict[str, list[tuple[Row, ...]]] = {}
    for rows in largest.values():
        networks.setdefault(rows[0].problem.network_slug, []).append(rows)
    yield from (_sheet(f"{name}-trade-off", problems) for name, problems in sorted(networks.items()))


def _methods(rows: Sequence[Row]) -> int:
    return len({row.label for row in rows})


def _sheet(name: str, problems: Sequence[Sequence[Row]]) -> Drawing:
    """Return a picture with a line of two plots for each problem, and a legend for all."""
    figure, panels = new_figure(rows=len(problems), columns=2, sharey="row")
    styles = looks(row.method for rows in problems for row in rows)
    numbers = range(1, len(problems) + 1)
    for number, rows, pair in zip(numbers, problems, zip(panels[::2], panels[1::2], strict=True), strict=True):
        _plot(pair, rows, styles)
        pair[0].set_title(f"{number}", loc="left", fontsize="small")
    figure.set_figheight(1.9 * len(problems) + 0.25 + 0.16 * legend_below(figure, panels, 3))
    listed = "; ".join(f"{number}: {rows[0].problem.title}" for number, rows in zip(numbers, problems, strict=True))
    lines = [{"problem": rows[0].problem.slug, **line} for rows in problems for row in rows for line in _lines(row)]
    return Drawing(name, f"CAne against FAe and FPAe ({listed}): {_MEANING}", figure, lines)


def _drawing(name: str, caption: str, rows: Sequence[Row]) -> Drawing:
    figure, panels = new_figure(columns=2, sharey=True)
    _plot(panels, rows, looks(row.method for row in rows))
    figure.set_figheight(2.15 + 0.16 * legend_below(figure, panels[:1], 3))
    lines = [line for row in rows for line in _lines(row)]
    return Drawing(name, f"CAne against FAe and FPAe ({caption}): {_MEANING}", figure, lines)


def _plot(panels: Sequence[Axes], rows: Sequence[Row], styles: Mapping[str, MarkerStyle]) -> None:
    gate = _gate(rows)
    for axes, short in zip(panels, X_METRICS, strict=True):
        _draw(axes, rows, short, styles)
        if gate is not None:
            axes.axhline(100 * gate, color=GREY, linestyle=":", linewidth=0.8, zorder=1)
        percent_axis(axes, "x", short)
    percent_axis(panels[0], "y", "CAne")
    _mark_fdr(panels[1], rows)
    _squeeze(panels, [100 * value for row in rows for value in row.values(SHORT["CAne"]).values()], gate)


def _draw(axes: Axes, rows: Sequence[Row], short: str, styles: Mapping[str, MarkerStyle]) -> None:
    for row in rows:
        look = styles[row.method.label]
        x, y = _points(row, short)
        if not x:
            continue
        faint = look.line(markersize=3, markeredgewidth=0, markerfacecolor=look.colour)
        axes.plot(x, y, linestyle="none", alpha=0.3, zorder=2, **faint)
        axes.plot(
            [np.mean(x)], [np.mean(y)], linestyle="none", label=method_name(row), zorder=3, **look.line(markersize=5.5)
        )


def _points(row: Row, short: str) -> tuple[list[float], list[float]]:
    """Return x and y of each seed, in percent."""
    kept, forgotten = row.values(SHORT["CAne"]), row.values(SHORT[short])
    seeds = [seed for seed in forgotten if seed in kept]
    return [100 * forgotten[seed] for seed in seeds], [100 * kept[seed] for seed in seeds]


def _gate(rows: Iterable[Row]) -> float | None:
    original = next((row.mean(SHORT["CAne"]) for row in rows if row.method.name == "original"), None)
    return None if original is None else original - MOST_LOSS


def _mark_fdr(axes: Axes, rows: Iterable[Row]) -> None:
    level = next((row.mean(SHORT["FPAe"]) for row in rows if row.method.name == "fdr"), None)
    if level is not None:
        axes.axvline(100 * level, color=BLUE, linestyle="--", linewidth=0.8, zorder=1)


def _squeeze(panels: Sequence[Axes], heights: Sequence[float], gate: float | None) -> None:
    """Squeeze values far below the gate into a quarter of the axis, if most of it would otherwise be empty."""
    low, high = min(heights), max(heights)
    if gate is None or not 100 * gate - low > 1.5 * (high - 100 * gate) > 0:
        return
    bend = 100 * gate - 0.4 * (high - 100 * gate)
    top, bottom = high + 0.08 * (high - bend), low - 0.08 * (bend - low)
    axes = panels[0]
    axes.set_yscale("function", functions=_bent(bottom, bend, top))
    axes.set_ylim(bottom, top)
    for panel in panels:
        panel.axhspan(bottom, bend, color="#eeeeee", zorder=0)
    axes.set_yticks([*_ticks(bottom, bend, 2)[:2], *_ticks(bend, top, 4)])
    axes.yaxis.set_major_formatter("{x:g}")


def _bent(bottom: float, bend: float, top: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return a piecewise linear scale and its inverse."""
    values, places = [bottom, bend, top], [0.0, SQUEEZED, 1.0]
    # The scale continues beyond its ends, because matplotlib evaluates it there too.
    values = [bottom - (bend - bottom), *values, top + (top - bend)]
    places = [-SQUEEZED, *places, 2 - SQUEEZED]
    return (lambda value: np.interp(value, values, places)), (lambda place: np.interp(place, places, values))


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Return about `count` round numbers strictly between two values."""
    step = next(step for step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if (high - low) / step <= count + 0.5)
    return [step * number for number in range(int(low // step) + 1, int(high // step) + 1) if step * number < high]


def _lines(row: Row) -> Iterator[dict[str, Any]]:
    for seed, kept in row.values(SHORT["CAne"]).items():
        yield {
            "method": method_name(row),
            "seed": seed,
            **{metric: row.values(metric).get(seed) for metric in SHORT.values() if metric != SHORT["CAne"]},
            SHORT["CAne"]: kept,
        }
