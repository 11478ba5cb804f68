"""What is left of the forget classes at each stage of the network: a heat map of methods and stages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from unlearnbench.escape import one_line
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import PAGE, new_figure
from unlearnbench.results.summaries.stages import STAGE_LEGEND, StageMap, StageMetric, stage_map
from unlearnbench.results.tables import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

# More columns than these leave no room for numbers in the cells.
NUMBERED_STAGES = 4
# Longer names of stages are turned.
LEVEL_LETTERS = 4
# Beyond this share of a colour scale its ends are so dark that white letters are read more easily.
DARK = 0.65


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a map for each problem on which a method was judged at the stages of the network."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            found = stage_map(rows)
            if found is not None:
                yield _drawing(f"{experiment.stem(rows)}-stages", experiment.caption(rows), found)


def _drawing(name: str, caption: str, found: StageMap) -> Drawing:
    figure, panels = new_figure(PAGE, 1.25 + 0.17 * len(found.rows), columns=len(found.values), sharey=True)
    images = [_draw(axes, found, metric) for axes, metric in zip(panels, found.values, strict=True)]
    panels[0].set_yticks(range(len(found.rows)), [method_name(row) for row in found.rows])
    for is_gap, label in ((True, "points"), (False, "similarity")):
        of_kind = [at for at, metric in enumerate(found.values) if metric.is_gap is is_gap]
        axes = [panels[at] for at in of_kind]
        bar = figure.colorbar(images[of_kind[0]], ax=axes, location="bottom", shrink=0.6, aspect=30, pad=0.02)
        bar.set_label(label)
        bar.outline.set_linewidth(0.4)
    title = f"The forget classes at each stage of the network ({caption}). {STAGE_LEGEND}"
    return Drawing(name, title, figure, list(_lines(found)))


def _draw(axes: Axes, found: StageMap, metric: StageMetric) -> AxesImage:
    """Draw the panel of one metric."""
    factor = 100.0 if metric.is_gap else 1.0
    values = np.array([[np.nan if value is None else factor * value for value in row] for row in found.values[metric]])
    limit = factor * found.largest_gap
    low, high, colours = (-limit, limit, "RdBu_r") if metric.is_gap else (0.0, 1.0, "Purples")
    image = axes.imshow(values, cmap=colours, vmin=low, vmax=high, aspect="auto", interpolation="nearest")
    axes.set_title(metric.title)
    long = max(map(len, found.stages)) > LEVEL_LETTERS
    turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if long else {}
    axes.set_xticks(range(len(found.stages)), [one_line(name) for name in found.stages], **turned)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    if len(found.stages) <= NUMBERED_STAGES:
        _write_numbers(axes, found, metric, high / factor)
    return image


def _write_numbers(axes: Axes, found: StageMap, metric: StageMetric, high: float) -> None:
    for row, values in enumerate(found.values[metric]):
        for column, value in enumerate(values):
            # A diverging scale is dark at both ends, that of similarities at its upper end.
            share = 0.0 if value is None else (abs(value) if metric.is_gap else value) / high
            colour = "white" if share > DARK else "black"
            axes.text(column, row, metric.text(value), ha="center", va="center", fontsize=7, color=colour)


def _lines(found: StageMap) -> Iterator[dict[str, Any]]:
    for at, row in enumerate(found.rows):
        for number, stage in enumerate(found.stages):
            yield {
                "method": method_name(row),
                "stage": stage,
                **{metric.metric: rows[at][number] for metric, rows in found.values.items()},
            }
