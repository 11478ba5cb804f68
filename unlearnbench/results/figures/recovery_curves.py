"""What comes back of the forget classes: FAe against bits, pruned share, and images of fine-tuning."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import COLUMN, MarkerStyle, legend_below, looks, new_figure, percent_axis
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name

# By metric: what its curve runs over, what the axis is called, and the factor from the record to the axis.
CURVES = {
    "rounding_recovery": ("bits", "bits of a weight", 1),
    "pruning_recovery": ("share", "smallest weights at 0 (%)", 100),
    "fine_tuning_recovery": ("shots", "images of each class", 1),
}
HEIGHT = 2.75


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each problem and recovery metric, with a line for each row that has its curve."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            for label in dict.fromkeys(label for row in rows for record in row.done for label in record.metrics):
                found = [(row, metrics) for row in rows if (metrics := _metrics(row, label))]
                if found:
                    name = f"{experiment.stem(rows)}-{label.replace(' ', '-').replace('=', '-')}"
                    yield _drawing(name, experiment.caption(rows), found)


def _metrics(row: Row, label: str) -> dict[int, MetricRecord]:
    """Return a recovery metric's records by seed; empty for any other metric."""
    found = {record.seed: record.metrics[label] for record in row.done if label in record.metrics}
    return {seed: one for seed, one in found.items() if one.name in CURVES and one.value is not None}


def _drawing(name: str, caption: str, found: Sequence[tuple[Row, Mapping[int, MetricRecord]]]) -> Drawing:
    metric = next(iter(found[0][1].values())).name
    key, axis, factor = CURVES[metric]
    styles = looks(row.method for row, _ in found)
    figure, (axes,) = new_figure(COLUMN, HEIGHT)
    lines: list[dict[str, Any]] = []
    for row, metrics in found:
        curve = _points(metrics, key)
        look: MarkerStyle = styles[row.method.label]
        places = [factor * amount for amount in curve]
        axes.plot(
            places, [100 * statistics.fmean(values) for values in curve.values()], label=method_name(row), **look.line()
        )
        lines += [_line(row, key, amount, values) for amount, values in curve.items()]
    if key == "bits":
        # Fewer bits do more, as a larger share or more images do.
        axes.invert_xaxis()
    axes.set_xlabel(axis)
    percent_axis(axes, "y", "FAe", (-3, 103))
    legend_below(figure, [axes], 4)
    return Drawing(name, _title(metric, caption), figure, lines)


def _points(metrics: Mapping[int, MetricRecord], key: str) -> dict[float, list[float]]:
    """Return FAe over the seeds by what the curve runs over."""
    points: dict[float, list[float]] = {}
    for metric in metrics.values():
        for point in metric.details["curve"]:
            points.setdefault(point[key], []).append(point["forget_accuracy"])
    return dict(sorted(points.items()))


def _title(metric: str, caption: str) -> str:
    what = {
        "rounding_recovery": "after the weights were rounded to few bits",
        "pruning_recovery": "after the smallest weights of each layer were set to 0",
        "fine_tuning_recovery": "after fine-tuning on a few limited images of every class",
    }[metric]
    return f"FAe {what} ({caption}), mean over seeds. FDR's line is the yardstick; what lies above it came back."


def _line(row: Row, key: str, amount: float, values: Sequence[float]) -> dict[str, Any]:
    return {
        "method": method_name(row),
        key: amount,
        "seeds": len(values),
        "mean FAe": statistics.fmean(values),
        "lowest seed": min(values),
        "highest seed": max(values),
    }
