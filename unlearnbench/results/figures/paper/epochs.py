"""Figure 2 of the supplement: FAe, FPAe and CAne after each epoch of an unlearner."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Any

from unlearnbench.registry.component import label_slug
from unlearnbench.results.experiments import Experiment
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import GREY, METRIC_STYLES, legend_below, new_figure, percent_axis
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name
from unlearnbench.terms import SHORT


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each unlearner whose records hold its epochs."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            references = {row.method.name: row for row in rows if row.is_reference}
            for row in rows:
                if any(record.epochs for record in row.done):
                    yield _drawing(experiment, row, references)


def _drawing(experiment: Experiment, row: Row, references: dict[str, Row]) -> Drawing:
    figure, (axes,) = new_figure(height=2.75)
    lines = []
    for short, metric in SHORT.items():
        look = METRIC_STYLES[short]
        by_epoch = epoch_values(row, metric, references.get("original"))
        epochs = sorted(by_epoch)
        means = [100 * statistics.fmean(by_epoch[epoch].values()) for epoch in epochs]
        axes.fill_between(
            epochs,
            [100 * min(by_epoch[epoch].values()) for epoch in epochs],
            [100 * max(by_epoch[epoch].values()) for epoch in epochs],
            color=look.colour,
            alpha=0.15,
            linewidth=0,
        )
        axes.plot(epochs, means, label=short, zorder=3, **look.line())
        for name, style in (("original", "--"), ("fdr", ":")):
            level = references[name].mean(metric) if name in references else None
            if level is not None:
                axes.axhline(100 * level, color=look.colour, linestyle=style, linewidth=0.9)
        lines += list(_lines(row, metric, by_epoch, references))
    for shown, style in (("Original", "--"), ("FDR", ":")):
        axes.plot([], [], color=GREY, linestyle=style, linewidth=0.9, label=shown)
    axes.set_xlabel("epoch of the removal")
    axes.xaxis.get_major_locator().set_params(integer=True)
    percent_axis(axes, "y", "accuracy", (-3, 103))
    legend_below(figure, [axes], 5)
    title = (
        f"{method_name(row)} epoch by epoch ({experiment.name}, {row.problem.title}): means over seeds, shaded from "
        "the lowest to the highest seed; epoch 0 is Original. Dashed: Original's values, dotted: FDR's."
    )
    return Drawing(f"{experiment.stem([row])}-{label_slug(row.label)}-epochs", title, figure, lines)


def epoch_values(row: Row, metric: str, original: Row | None) -> dict[int, dict[int, float]]:
    """Return a metric by epoch and seed; epoch 0 is Original of the same seed, where the unlearner starts."""
    found: dict[int, dict[int, float]] = {}
    for record in row.done:
        for epoch in record.epochs:
            value = epoch.metrics.get(metric)
            if value is not None:
                found.setdefault(epoch.epoch, {})[record.seed] = value
    seeds = {seed for values in found.values() for seed in values}
    start = {seed: value for seed, value in (original.values(metric) if original else {}).items() if seed in seeds}
    return {0: start, **found} if start else found


def _lines(
    row: Row, metric: str, by_epoch: dict[int, dict[int, float]], references: dict[str, Row]
) -> Iterator[dict[str, Any]]:
    levels = {name: references[name].values(metric) if name in references else {} for name in ("original", "fdr")}
    for epoch in sorted(by_epoch):
        for seed, value in sorted(by_epoch[epoch].items()):
            yield {
                "method": method_name(row),
                "metric": metric,
                "epoch": epoch,
                "seed": seed,
                "value": value,
                **{name: values.get(seed) for name, values in levels.items()},
            }
