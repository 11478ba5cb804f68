"""How much the features still know: FPAe of each unlearner beside that of FDR."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import BLUE, looks, new_figure, percent_axis
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name
from unlearnbench.terms import SHORT

METRIC = SHORT["FPAe"]


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a chart for each problem for which an unlearner has a result."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            shown = [row for row in rows if row.values(METRIC)]
            if any(not row.is_reference for row in shown):
                yield _drawing(f"{experiment.stem(rows)}-fpae", experiment.caption(rows), shown)


def _drawing(name: str, caption: str, rows: Sequence[Row]) -> Drawing:
    figure, (axes,) = new_figure(height=0.55 + 0.19 * len(rows))
    styles = looks(row.method for row in rows)
    for place, row in enumerate(rows):
        values = [100 * value for value in row.values(METRIC).values()]
        mean, (low, high) = sum(values) / len(values), _interval(row)
        axes.barh(place, mean, height=0.7, color=styles[row.method.label].colour, alpha=0.55)
        axes.plot([max(low, 0), min(high, 100)], [place, place], color="black", linewidth=0.9)
        axes.plot(values, [place] * len(values), "|", color="black", markersize=5, markeredgewidth=0.9)
    fdr = next((row for row in rows if row.method.name == "fdr"), None)
    if fdr is not None:
        axes.axvline(100 * (fdr.mean(METRIC) or 0.0), color=BLUE, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(rows)), [method_name(row) for row in rows])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    percent_axis(axes, "x", "FPAe", (0, 100))
    title = (
        f"FPAe of each method ({caption}): bars are means, ticks are seeds, black lines 95 % t intervals over seeds, "
        "cut at 0 and 100. The dashed line is FDR's mean: a method above it still knows the classes, below is damage."
    )
    return Drawing(name, title, figure, [_line(row) for row in rows])


def _interval(row: Row) -> tuple[float, float]:
    """Return the interval in percent; without one, both ends are the mean."""
    mean = row.mean(METRIC) or 0.0
    low, high = row.interval(METRIC) or (mean, mean)
    return 100 * low, 100 * high


def _line(row: Row) -> dict[str, Any]:
    low, high = row.interval(METRIC) or (None, None)
    return {
        "method": method_name(row),
        "seeds": len(row.values(METRIC)),
        "mean": row.mean(METRIC),
        "std": row.std(METRIC),
        "low": low,
        "high": high,
    }
