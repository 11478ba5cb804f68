"""The paper's figures 1 and 3: a forget class's accuracy while more and more of the parameters are zeroed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.results.figures.drawing import Drawing, FigureData
from unlearnbench.results.figures.style import BLUE, COLUMN, GREY, VERMILION, MarkerStyle, legend_below, new_figure
from unlearnbench.results.rows import Row

METRIC = "zeroed_accuracy"
ORDERS = {
    "high": ("high relevance", MarkerStyle(VERMILION, "o")),
    "low": ("low relevance", MarkerStyle(BLUE, "s")),
    "random": ("random", MarkerStyle(GREY, "X", filled=False)),
}
# This is the order of the paper.
AUGMENTATIONS = ("grayscale", "vertical_flip", "rotation", "affine", "none")
PANEL = 1.6
# Up to this many shares are labelled on the axis.
NAMED_SHARES = 8

# The curves of one augmentation map order and share to the metrics of Original, one for each seed.
Curves = Mapping[str, Mapping[float, Sequence[MetricRecord]]]
Protocol = tuple[str, str, str]


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a plot for each problem and protocol of `zeroed_accuracy`, with a panel for each augmentation."""
    for experiment in source.experiments:
        for rows in experiment.problems:
            original = next((row for row in rows if row.is_reference and row.method.name == "original"), None)
            protocols = _protocols(original) if original is not None else {}
            for protocol, curves in protocols.items():
                name = f"{experiment.stem(rows)}-zeroed"
                if len(protocols) > 1:
                    name += "".join(f"-{value}" for value in protocol)
                yield _drawing(name, experiment.caption(rows), protocol, curves)


def _protocols(original: Row) -> dict[Protocol, dict[str, Curves]]:
    """Return Original's values over the seeds, by protocol, augmentation, order and share.

    Share 0 is the same for all orders and augmentations, and a random order is the same for all augmentations. If the
    manifest does not repeat such a metric, it becomes part of all curves.
    """
    found: dict[Protocol, list[MetricRecord]] = {}
    for record in original.done:
        for metric in record.metrics.values():
            if metric.name == METRIC and metric.value is not None:
                options = metric.options
                found.setdefault((options["layers"], options["sorted_in"], options["images"]), []).append(metric)
    return {protocol: _curves(metrics) for protocol, metrics in found.items()}


def _curves(metrics: Sequence[MetricRecord]) -> dict[str, Curves]:
    # Neither a random order nor share 0 depends on an augmentation.
    telling = [metric for metric in metrics if metric.options["order"] != "random" and metric.options["share"] > 0]
    named = {metric.options["augmentation"] for metric in telling or metrics}
    augmentations = sorted(named, key=AUGMENTATIONS.index)
    orders = [order for order in ORDERS if any(metric.options["order"] == order for metric in metrics)]
    return {
        augmentation: {order: _curve(metrics, augmentation, order) for order in orders}
        for augmentation in augmentations
    }


def _curve(metrics: Sequence[MetricRecord], augmentation: str, order: str) -> dict[float, list[MetricRecord]]:
    curve: dict[float, list[MetricRecord]] = {}
    for share in sorted({float(metric.options["share"]) for metric in metrics}):
        here = [metric for metric in metrics if metric.options["share"] == share]
        own = [metric for metric in here if metric.options["order"] == order]
        exact = [metric for metric in own if metric.options["augmentation"] == augmentation]
        chosen = exact or (own if order == "random" else []) or (_first_of_a_kind(here) if share == 0 else [])
        if chosen:
            curve[share] = chosen
    return curve


def _first_of_a_kind(metrics: Sequence[MetricRecord]) -> list[MetricRecord]:
    """Return the metrics with the options of the first one, one for each seed."""
    return [metric for metric in metrics if metric.options == metrics[0].options]


def _drawing(name: str, caption: str, protocol: Protocol, curves: Mapping[str, Curves]) -> Drawing:
    columns = min(2, len(curves))
    lines = -(-len(curves) // columns)
    figure, axes = new_figure(COLUMN, 0.75 + PANEL * lines, rows=lines, columns=columns, sharex=True, sharey=True)
    rows = []
    for place, (augmentation, by_order) in zip(axes, curves.items(), strict=False):
        for order, curve in by_order.items():
            label, look = ORDERS[order]
            shares = [100 * share for share in curve]
            values = [[100 * (metric.value or 0.0) for metric in metrics] for metrics in curve.values()]
            place.fill_between(
                shares, list(map(min, values)), list(map(max, values)), color=look.colour, alpha=0.2, lw=0
            )
            place.plot(shares, list(map(statistics.fmean, values)), label=label, **look.line())
            rows += [_line(augmentation, order, share, metrics) for share, metrics in curve.items()]
        if len(curves) > 1:
            place.set_title(augmentation.replace("_", " "))
        _share_axis(place, sorted({share for curve in by_order.values() for share in curve}))
        place.set_ylim(-3, 103)
    for place in axes[len(curves) :]:
        place.set_axis_off()
    scope = "each layer's" if protocol[1] == "layer" else "the model's"
    # A label of the whole figure would overlap the legend, and its empty second line keeps that space free.
    figure.supxlabel(f"share of {scope} parameters zeroed (%)\n", fontsize=8, linespacing=1.7)
    figure.supylabel("accuracy of the forget class (%)", fontsize=8)
    legend_below(figure, [axes[0]], 3)
    return Drawing(name, _title(caption, protocol, curves), figure, rows)


def _share_axis(axes: Any, shares: Sequence[float]) -> None:
    """Scale the axis to give small shares room: linear up to the smallest one, logarithmic beyond."""
    percents = [100 * share for share in shares]
    positive = [percent for percent in percents if percent > 0]
    if len(positive) > 2 and positive[-1] / positive[0] > 10:
        axes.set_xscale("symlog", linthresh=positive[0], linscale=0.5)
    if len(percents) <= NAMED_SHARES:
        axes.set_xticks(percents, [f"{percent:g}" for percent in percents])
        axes.set_xticks([], minor=True)


def _title(caption: str, protocol: Protocol, curves: Mapping[str, Curves]) -> str:
    layers, _, images = protocol
    what = "convolution and linear weights" if layers == "weights" else "all parameters, biases and batch norm included"
    augmentations = ", ".join(augmentation.replace("_", " ") for augmentation in curves)
    return (
        f"Accuracy of one forget class, on its {images} images, with a share of Original's parameters zeroed "
        f"({caption}; {what}; augmentation: {augmentations}). Parameters are sorted by the absolute gradient of the "
        "class's loss on augmented limited images. Lines: mean over the forget classes, each by itself, and over "
        "seeds; bands: lowest to highest seed. Random is the control."
    )


def _line(augmentation: str, order: str, share: float, metrics: Sequence[MetricRecord]) -> dict[str, Any]:
    values = [metric.value for metric in metrics if metric.value is not None]
    classes = [value for metric in metrics for value in metric.details["by_class"].values()]
    return {
        "augmentation": augmentation,
        "order": order,
        "share": share,
        "seeds": len(values),
        "mean": statistics.fmean(values),
        "lowest seed": min(values),
        "highest seed": max(values),
        "lowest class": min(classes),
        "highest class": max(classes),
    }
