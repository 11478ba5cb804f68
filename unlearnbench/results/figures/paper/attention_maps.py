"""The paper's figure 4: where the network looks before and after, in pictures and in numbers over all test images."""

from __future__ import annotations

import functools
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import DatasetError, MetricError, PluginError
from unlearnbench.metrics.features import FeatureFile, open_features
from unlearnbench.metrics.gradcam import class_activation_maps, entropy, shift
from unlearnbench.metrics.metric_record import MetricRecord
from unlearnbench.models.batches import Batches
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.classifier import load_network
from unlearnbench.models.device_data import LoadedData
from unlearnbench.models.recipe import read_recipe
from unlearnbench.results.experiments import Experiment
from unlearnbench.results.figures.drawing import Drawing, FigureData, NotDrawnError, each_drawn, of_seed
from unlearnbench.results.figures.style import BLUE, COLUMN, PAGE, VERMILION, new_figure, percent_axis
from unlearnbench.results.records.record import ProblemRecord, Record
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


METRICS = {"attention_entropy": "entropy of attention", "attention_shift": "attention moved"}
EXPLAINED = {"label": "of the own class", "predicted": "of the predicted class"}
IMAGES = {"forget": VERMILION, "retain": BLUE}
METHODS_SHOWN = 6
EACH_KIND = 3
# A paper's column has room for this many pictures in a row, and for this many inches of names and colour bar.
COLUMNS_OF_A_COLUMN = 5
BESIDE = 0.8
# A class's name stands beside its picture, on two lines of at most this many letters.
NAME_LETTERS = 10
# This map runs from dark blue to yellow, and its lightness grows with the value, so that it can be read in grey.
COLOUR_MAP = "viridis"


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a chart and a picture grid for each problem whose records hold attention metrics.

    Raises:
        NotDrawnError: After all others were drawn, if the store lacks the models of a problem or the data set is not
            here.
    """
    yield from each_drawn(
        functools.partial(_of_problem, source, experiment, rows)
        for experiment in source.experiments
        for rows in experiment.problems
    )


def _of_problem(source: FigureData, experiment: Experiment, rows: Sequence[Row]) -> Iterator[Drawing]:
    shown = [row for row in rows if any(_metrics(record) for record in row.done)]
    if shown:
        yield _bars(f"{experiment.stem(rows)}-attention", experiment.caption(rows), shown)
        yield from _grid(source, f"{experiment.stem(rows)}-attention-maps", experiment.caption(rows), shown)


def _metrics(record: Record) -> list[MetricRecord]:
    return [metric for metric in record.metrics.values() if metric.name in METRICS]


@dataclass(frozen=True)
class Bar:
    """An attention metric of an unlearner on one kind of images.

    Attributes:
        values: Fractions, one for each seed that has a value.
        empty: Mean share of empty maps over these seeds; None without a value.
        reason: Why there is no value; "" if there is one or the metric was not asked for.
    """

    values: tuple[float, ...]
    empty: float | None
    reason: str


def _bar(row: Row, metric: str, explained: str, images: str) -> Bar:
    found = [
        one
        for record in row.done
        for one in record.metrics.values()
        if (one.name, one.options.get("explained"), one.options.get("images")) == (metric, explained, images)
    ]
    done = [one for one in found if one.value is not None]
    empty = [one.details["empty_maps"] / one.details["images"] for one in done]
    reason = next((one.reason or "" for one in found if one.value is None), "")
    return Bar(
        tuple(one.value for one in done if one.value is not None),
        statistics.fmean(empty) if empty else None,
        "" if done else reason,
    )


def _bars(name: str, caption: str, rows: Sequence[Row]) -> Drawing:
    asked = {metric.options["explained"] for row in rows for record in row.done for metric in _metrics(record)}
    explained = [key for key in EXPLAINED if key in asked]
    figure, axes = new_figure(
        COLUMN, 0.5 + (0.45 + 0.25 * len(rows)) * len(explained), rows=len(explained), columns=2, sharey=True
    )
    lines = []
    for place, (key, metric) in zip(axes, ((key, metric) for key in explained for metric in METRICS), strict=True):
        for at, row in enumerate(rows):
            for offset, images in zip((-0.2, 0.2), IMAGES, strict=True):
                bar = _bar(row, metric, key, images)
                _draw_bar(place, at + offset, bar, images)
                lines.append(_bar_line(row, metric, key, images, bar))
        percent_axis(place, "x", METRICS[metric], (0, 100))
        place.grid(visible=False, axis="y")
        place.set_title(EXPLAINED[key])
    for place in axes:
        place.set_yticks(range(len(rows)), [method_name(row) for row in rows])
    axes[0].invert_yaxis()
    handles = [axes[0].barh([-9], [0], color=colour, alpha=0.65) for colour in IMAGES.values()]
    axes[0].set_ylim(len(rows) - 0.45, -0.55)
    figure.legend(handles, [f"{kind} images" for kind in IMAGES], loc="outside lower center", ncols=2)
    title = (
        f"Attention on all test images ({caption}): how far the mass of class activation maps (Grad-CAM) is scattered, "
        "0 all in one place and 100 even, and how much of it lies elsewhere than in Original's map. Bars are means, "
        "ticks seeds; x: no value, since no output stands for the class or every map is empty, which the CSV tells."
    )
    return Drawing(name, title, figure, lines)


def _draw_bar(axes: Axes, at: float, bar: Bar, images: str) -> None:
    if not bar.values:
        axes.plot([2.5], [at], "x", color=IMAGES[images], markersize=4, markeredgewidth=1.2)
        return
    values = [100 * value for value in bar.values]
    axes.barh(at, statistics.fmean(values), height=0.36, color=IMAGES[images], alpha=0.65)
    axes.plot(values, [at] * len(values), "|", color="black", markersize=4, markeredgewidth=0.8)


def _bar_line(row: Row, metric: str, explained: str, images: str, bar: Bar) -> dict[str, Any]:
    return {
        "method": method_name(row),
        "metric": metric,
        "explained": explained,
        "images": images,
        "seeds": len(bar.values),
        "mean": statistics.fmean(bar.values) if bar.values else None,
        "lowest seed": min(bar.values, default=None),
        "highest seed": max(bar.values, default=None),
        "share of empty maps": bar.empty,
        "reason": bar.reason,
    }


@dataclass(frozen=True)
class Picture:
    """A test image in the grid.

    Attributes:
        kind: `forget` or `retain`.
        label: Class of the image.
        class_name: Name of the class.
        position: Position among the test images.
        identity: Id of the image in the data set.
    """

    kind: str
    label: int
    class_name: str
    position: int
    identity: int


def _grid(source: FigureData, name: str, caption: str, rows: Sequence[Row]) -> Iterator[Drawing]:
    """Yield the picture grid of the first seed that Original and all unlearners share, preferably one in the store."""
    original = next((row for row in rows if row.is_reference and row.method.name == "original"), None)
    seed = source.first_seed(rows, "model")
    if original is None or seed is None:
        return
    columns = [original, *(row for row in rows if row is not original)][: METHODS_SHOWN + 1]
    records = of_seed(columns, seed)
    data = _data(records[0].problem)
    with open_features(source.file(records[0], "features")) as features:
        pictures = chosen_pictures(features, data.dataset.info.class_names)
    positions = torch.tensor([picture.position for picture in pictures])
    labels = torch.tensor([picture.label for picture in pictures])
    images = data.test.plain(positions)
    maps = [_maps(_model(source, record, data), images, labels) for record in records]
    yield _draw_grid(name, f"{caption}, seed {seed}", columns, pictures, _grey(data.test, images), maps)


def _data(problem: ProblemRecord) -> LoadedData:
    """Return the images of a record's problem as its run showed them.

    Raises:
        NotDrawnError: If the data set is not here, or is not that of the run.
    """
    try:
        dataset = open_dataset(problem.dataset, problem.dataset_options)
    except (DatasetError, PluginError) as error:
        raise NotDrawnError(f"the images of {problem.dataset} are not here: {error}") from error
    if dataset.info.revision != problem.dataset_revision:
        raise NotDrawnError(
            f"{problem.dataset} has revision {dataset.info.revision} here, the run's was {problem.dataset_revision}"
        )
    return LoadedData(dataset, read_recipe(problem.training), torch.device("cpu"))


def _model(source: FigureData, record: Record, data: LoadedData) -> nn.Module:
    """Return a record's model, in evaluation mode."""
    problem = record.problem
    shape = input_shape(data.dataset.info.shape, data.recipe)
    network = Network(problem.architecture, problem.architecture_options, problem.num_classes, shape)
    return load_network(network.unfilled(), source.file(record, "model")).eval()


def chosen_pictures(features: FeatureFile, class_names: Sequence[str]) -> list[Picture]:
    """Return the pictures of a grid: the first test image that Original recognises, of evenly spaced classes.

    If it recognises no image of a class, the first one is taken.

    Args:
        features: Feature file of Original.
        class_names: K names.
    """
    labels, ids = features.array("test/labels"), features.array("test/ids")
    predicted = features.output_classes[features.array("test/logits").argmax(axis=1)]
    pictures = []
    for kind, classes in (("forget", features.forget_classes), ("retain", features.retain_classes)):
        spaced = np.linspace(0, len(classes) - 1, min(EACH_KIND, len(classes))).round().astype(int)
        for label in classes[spaced].tolist():
            of_class = np.flatnonzero(labels == label)
            recognised = of_class[predicted[of_class] == label]
            position = int((recognised if len(recognised) else of_class)[0])
            pictures.append(Picture(kind, label, class_names[label], position, int(ids[position])))
    return pictures


def _maps(model: nn.Module, images: Tensor, labels: Tensor) -> list[Tensor | None]:
    """Return the map (h, w) of each image, or None if the model has no output for its class."""
    found: list[Tensor | None] = []
    for image, label in zip(images.split(1), labels.split(1), strict=True):
        try:
            found.append(class_activation_maps(model, image, label)[0])
        except MetricError:
            found.append(None)
    return found


def _grey(test: Batches, images: Tensor) -> Tensor:
    """Return the images in grey, (N, H, W) in [0, 1]."""
    return test.denormalise(images).mean(dim=1).clamp(0, 1)


def _draw_grid(
    name: str,
    caption: str,
    columns: Sequence[Row],
    pictures: Sequence[Picture],
    grey: Tensor,
    maps: Sequence[Sequence[Tensor | None]],
) -> Drawing:
    width = COLUMN if len(columns) < COLUMNS_OF_A_COLUMN else PAGE
    side = (width - BESIDE) / (len(columns) + 1)
    figure, axes = new_figure(width, 0.2 + (side + 0.17) * len(pictures), rows=len(pictures), columns=len(columns) + 1)
    figure.get_layout_engine().set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.0)
    lines, shown = [], None
    for at, picture in enumerate(pictures):
        line = axes[at * (len(columns) + 1) : (at + 1) * (len(columns) + 1)]
        for place in line:
            place.set(xticks=[], yticks=[])
            place.imshow(grey[at].numpy(), cmap="gray", vmin=0, vmax=1)
        words = textwrap.wrap(picture.class_name.replace("_", " "), NAME_LETTERS)
        line[0].set_ylabel("\n".join([picture.kind, *words[:2]]), fontsize=7)
        for place, row, found in zip(line[1:], columns, maps, strict=True):
            numbers = _numbers(maps[0][at], found[at])
            shown = _lay_over(place, found[at], grey.shape[1:]) or shown
            place.set_xlabel(_below(found[at], numbers), labelpad=1.5, fontsize=7)
            lines.append(_grid_line(method_name(row), picture, found[at], numbers))
    for place, title in zip(axes, ("image", *(method_name(row) for row in columns)), strict=False):
        place.set_title(title)
    if shown is not None:
        figure.colorbar(shown, ax=axes, fraction=0.04, pad=0.02, aspect=40, label="attention (% of the map's largest)")
    title = (
        f"Class activation maps (Grad-CAM) of the image's own class ({caption}): of evenly spaced classes the first "
        "test image that Original recognises. Below each map: entropy of its mass / share that lies elsewhere than in "
        "Original's, in percent. No output: the method removed the class's; empty: nothing speaks for the class."
    )
    return Drawing(name, title, figure, lines)


def _lay_over(axes: Axes, found: Tensor | None, shape: Sequence[int]) -> Any:
    """Lay a map over its image and return what a colour bar needs, or None if the map is empty or missing."""
    if found is None or not found.any():
        return None
    smooth = F.interpolate((100 * found / found.max())[None, None], size=tuple(shape), mode="bilinear")[0, 0]
    return axes.imshow(smooth.numpy(), cmap=COLOUR_MAP, vmin=0, vmax=100, alpha=0.6)


def _numbers(before: Tensor | None, after: Tensor | None) -> tuple[float | None, float | None]:
    """Return a map's entropy and its shift from Original's map, each None if it has no value."""
    if after is None:
        return None, None
    spread = float(entropy(after[None]))
    moved = float(shift(before[None], after[None])) if before is not None else float("nan")
    return None if np.isnan(spread) else spread, None if np.isnan(moved) else moved


def _below(found: Tensor | None, numbers: tuple[float | None, float | None]) -> str:
    if found is None:
        return "no output"
    if not found.any():
        return "empty"
    return " / ".join("-" if number is None else f"{100 * number:.0f}" for number in numbers)


def _grid_line(
    method: str, picture: Picture, found: Tensor | None, numbers: tuple[float | None, float | None]
) -> dict[str, Any]:
    return {
        "image": picture.identity,
        "images": picture.kind,
        "class": picture.class_name,
        "method": method,
        "entropy": numbers[0],
        "shift": numbers[1],
        "map": "no output" if found is None else "drawn" if found.any() else "empty",
    }
