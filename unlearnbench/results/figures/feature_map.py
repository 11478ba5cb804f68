"""Test features of the forget classes in two dimensions, before and after unlearning."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.metrics.features import FeatureFile, open_features
from unlearnbench.results.experiments import Experiment
from unlearnbench.results.figures.drawing import Drawing, FigureData, each_drawn, of_seed
from unlearnbench.results.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, VERMILION, new_figure
from unlearnbench.results.records.record import Record
from unlearnbench.results.rows import Row
from unlearnbench.results.tables import method_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes


FORGET_SHOWN = 6
RETAIN_POINTS = 400
METHODS_SHOWN = 4
CLASS_LOOKS = ((VERMILION, "o"), (BLUE, "s"), (GREEN, "^"), (PURPLE, "D"), (ORANGE, "v"), (SKY, "X"))

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Projection:
    """The two directions in which Original's features of the shown classes vary most.

    Attributes:
        centre: (D,) mean of these features.
        directions: (D, 2) orthonormal columns.
        share: Share of their variance along the two directions.
    """

    centre: Points
    directions: Points
    share: float

    def of(self, features: Points) -> Points:
        """Return the (N, 2) coordinates of features (N, D)."""
        found: Points = (features - self.centre) @ self.directions
        return found


def fitted(features: Points) -> Projection:
    """Fit the projection onto the first two principal components of features (N, D)."""
    centre = features.mean(axis=0)
    _, singular, components = np.linalg.svd(features - centre, full_matrices=False)
    directions = components[:2].T
    # The sign of a component is arbitrary, so that its largest entry is made positive.
    largest = np.abs(directions).argmax(axis=0)
    directions = directions * np.sign(directions[largest, np.arange(2)])
    variances = singular**2
    return Projection(centre, directions, float(variances[:2].sum() / max(variances.sum(), 1e-12)))


def turned(features: Points, own: Points, target: Points) -> Points:
    """Return another network's features, rotated and shifted so that its `own` rows lie close to the `target` rows.

    Networks that were trained apart have features in unrelated coordinates. A rotation (with reflection) and a shift
    change no distance between features. Orthogonal Procrustes gives the rotation: U V^T of the SVD of own^T target.

    Args:
        features: (N, D) features to transform.
        own: (M, D) features of the same network.
        target: (M, D) features of Original for the same images.
    """
    left, _, right = np.linalg.svd((own - own.mean(axis=0)).T @ (target - target.mean(axis=0)))
    found: Points = (features - own.mean(axis=0)) @ (left @ right) + target.mean(axis=0)
    return found


def drawings(source: FigureData) -> Iterator[Drawing]:
    """Yield a map for each problem with an unlearner, for the first seed whose features are in the store.

    Raises:
        NotDrawnError: After all others were drawn, if the store lacks the features of a problem.
    """
    yield from each_drawn(
        functools.partial(_of_problem, source, experiment, rows)
        for experiment in source.experiments
        for rows in experiment.problems
    )


def _of_problem(source: FigureData, experiment: Experiment, rows: Sequence[Row]) -> Iterator[Drawing]:
    chosen = _chosen(rows)
    if len(chosen) == 1 or not any(row.method.name == "original" for row in chosen):
        return
    seed = source.first_seed(chosen, "features")
    if seed is not None:
        yield _drawing(source, f"{experiment.stem(rows)}-features", experiment.caption(rows), chosen, seed)


def _chosen(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the references and ERwP, or of the first unlearners if ERwP is not among them."""
    done = [row for row in rows if row.done]
    unlearners = [row for row in done if not row.is_reference]
    erwp = [row for row in unlearners if row.method.name == "erwp"]
    return [row for row in done if row.is_reference] + (erwp or unlearners)[:METHODS_SHOWN]


def _drawing(source: FigureData, name: str, caption: str, rows: Sequence[Row], seed: int) -> Drawing:
    records = of_seed(rows, seed)
    original = next(record for record in records if record.method.name == "original")
    with open_features(source.file(original, "features")) as file:
        shown = file.forget_classes[:FORGET_SHOWN]
        start = _features(file, shown)
        base = _features(file, file.retain_classes)
        projection = fitted(start)
    panels = [
        (method_name(row), _points(source, record, base, projection)) for row, record in zip(rows, records, strict=True)
    ]
    lines = -(-(len(panels) + 1) // 2)
    figure, axes = new_figure(height=1.6 * lines, rows=lines, columns=2)
    names = dict(zip(original.problem.forget_classes, original.problem.forget_class_names, strict=True))
    for place, (title, points) in zip(axes, panels, strict=False):
        _draw(place, title, points, names)
    _legend(axes[len(panels)], axes[0])
    for place in axes[: len(panels)]:
        place.set_xlabel("component 1")
        place.set_ylabel("component 2")
    for place in axes[len(panels) :]:
        place.set_axis_off()
    title = (
        f"Test features of forget classes ({caption}, seed {seed}), the first {len(shown)}: along the two principal "
        f"components of Original's features of these classes, {100 * projection.share:.0f} % of their variance; each "
        "panel has its own scale. Grey: images of retain classes. FDR is another network: its features are turned, no "
        "distance changed, so that those of retain images lie on Original's."
    )
    return Drawing(
        name, title, figure, [line for method, points in panels for line in _lines(method, seed, points, names)]
    )


def _features(file: FeatureFile, classes: NDArray[np.int64]) -> Points:
    return file.rows("test/features", classes).astype(np.float64)


@dataclass(frozen=True)
class Shown:
    """The content of one panel.

    Attributes:
        ids: (N,) ids of the images.
        labels: (N,) class indices; -1 for images of retain classes.
        places: (N, 2) coordinates.
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    places: Points


def _points(source: FigureData, record: Record, base: Points, projection: Projection) -> Shown:
    with open_features(source.file(record, "features")) as file:
        forget, retain = file.forget_classes[:FORGET_SHOWN], file.retain_classes
        own = _features(file, retain)
        step = max(1, len(own) // RETAIN_POINTS)
        labels, ids = file.array("test/labels"), file.array("test/ids")
        is_forget, is_retain = np.isin(labels, forget), np.isin(labels, retain)
        features = np.concatenate([own[::step], _features(file, forget)])
        if record.method.name == "fdr":
            features = turned(features, own, base)
        return Shown(
            np.concatenate([ids[is_retain][::step], ids[is_forget]]),
            np.concatenate([np.full(len(own[::step]), -1), labels[is_forget]]),
            projection.of(features),
        )


def _draw(axes: Axes, title: str, points: Shown, names: dict[int, str]) -> None:
    cloud = points.places[points.labels < 0]
    axes.plot(*cloud.T, ".", color=GREY, alpha=0.25, markersize=2, markeredgewidth=0, label="retain classes")
    for (colour, marker), label in zip(
        CLASS_LOOKS, np.unique(points.labels[points.labels >= 0]).tolist(), strict=False
    ):
        places = points.places[points.labels == label]
        axes.plot(*places.T, marker, color=colour, alpha=0.6, markersize=2.6, markeredgewidth=0, label=names[label])
    axes.set_title(title)
    axes.set_xticks([])
    axes.set_yticks([])


def _legend(axes: Axes, drawn: Axes) -> None:
    handles, labels = drawn.get_legend_handles_labels()
    axes.legend(handles, labels, loc="center", markerscale=2.2)


def _lines(method: str, seed: int, points: Shown, names: dict[int, str]) -> Iterator[dict[str, Any]]:
    for identity, label, (x, y) in zip(
        points.ids.tolist(), points.labels.tolist(), points.places.tolist(), strict=True
    ):
        kind = "retain" if label < 0 else names[label]
        yield {"method": method, "seed": seed, "image": identity, "class": kind, "x": round(x, 6), "y": round(y, 6)}
