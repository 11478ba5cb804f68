"""Views of the last stage's features: what nearest prototypes, neighbours and a linear probe find of forget classes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.prototype import class_prototype_accuracy, relative_position
from unlearnbench.metrics.builtin.recovery import LinearProbe, neighbour_classes
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, References, require_finite
from unlearnbench.seeds import derived_seed

NEIGHBOURS = 20
RIDGE = 0.01
FOLDS = 5

View = Literal["prototype", "neighbours", "probe"]
# Features (M, D) with labels (M,), and features (N, D) to classify, give the class of each, (N,).
Reader = Callable[[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]], NDArray[np.int64]]


def view_hits(features: FeatureFile, view: View) -> NDArray[np.bool_]:
    """Return whether a view finds the class of each forget test image, (N,) bool; all K classes compete.

    Raises:
        MetricError: If a forget class has no test image, there are too few images to learn from, or a feature is not
            finite.
    """

    def find() -> NDArray[np.bool_]:
        if view == "prototype":
            hits = class_prototype_accuracy(features, features.forget_classes, "full", "euclidean").hits
            assert hits is not None
            return hits
        read = _neighbours if view == "neighbours" else _probe
        found: NDArray[np.bool_] = _read(features, read) == features.labels("test", features.forget_classes)
        return found

    return features.once(("view", view), find)


def _neighbours(known: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.float32]) -> NDArray[np.int64]:
    return neighbour_classes(known, labels, rows, NEIGHBOURS, "cosine")


def _probe(known: NDArray[np.float32], labels: NDArray[np.int64], rows: NDArray[np.float32]) -> NDArray[np.int64]:
    require_finite(known_features=known, test_features=rows)
    return LinearProbe(known.astype(np.float64), labels, RIDGE).predict(rows.astype(np.float64))


def _read(features: FeatureFile, read: Reader) -> NDArray[np.int64]:
    """Return the class that a reader finds for each forget test image."""
    forget = features.forget_classes
    known = features.array("probe/labels")
    if len(known):
        rows = features.array("probe/features").astype(np.float32)
        return read(rows, known, features.rows("test/features", forget))
    labels, rows = features.array("test/labels"), features.array("test/features").astype(np.float32)
    fold = folds(labels, features.seed)
    found = np.full(len(labels), -1, dtype=np.int64)
    for number in range(FOLDS):
        held = (fold == number) & np.isin(labels, forget)
        if held.any():
            found[held] = read(rows[fold != number], labels[fold != number], rows[held])
    return found[np.isin(labels, forget)]


def folds(labels: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Return the fold of each image, (N,) in [0, `FOLDS`), drawn so that each class is spread over the folds evenly.

    Raises:
        MetricError: If a class has a single image, so that nothing could be learned about it.
    """
    found = np.zeros(len(labels), dtype=np.int64)
    for label in np.unique(labels).tolist():
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise MetricError(f"class {label} has a single test image; cross-fitting needs 2")
        stream = np.random.default_rng(derived_seed(seed, "folds", label))
        found[stream.permutation(members)] = np.arange(len(members)) % FOLDS
    return found


def forget_view_accuracy(
    features: FeatureFile, *, view: Literal["prototype", "neighbours", "probe"] = "probe"
) -> Measurement:
    """View accuracy: share of the forget classes' test images whose class a view of the features finds.

        (1/N) sum_i [class that the view finds for f_i = label_i], over the N forget test images; f (N, D)

    The features are those of the last stage, and all K classes compete. `prototype` is the nearest class mean over all
    training images (FPAe), `neighbours` the majority of the 20 nearest images by cosine, `probe` a least-squares linear
    classifier with class-balanced weights. The last two learn from the file's images for probes: training images
    outside the limited data, the same number of each class, which the method never saw. Where there are none, they
    learn from the test images of the other four of five folds.

    Args:
        features: The judged model's features.
        view: `prototype`, `neighbours` or `probe`.

    Returns:
        A fraction in [0, 1]. The yardstick is FDR's value, not 0: a value below it means damage.

    Raises:
        MetricError: If a forget class has no test image, there are too few images to learn from, or a feature is not
            finite.

    Source: own, from FPAe (ERwP, ECCV 2022), k-nearest-neighbour evaluation (Wu et al., CVPR 2018) and linear probes
    (Alain and Bengio, 2016). A method can push one view to FDR's value while another still knows the class. Known
    weakness: no view finds what only a non-linear reader would.
    """
    hits = view_hits(features, view)
    return Measurement(float(hits.mean()), hits=hits)


def position(
    features: FeatureFile,
    references: References,
    *,
    view: Literal["prototype", "neighbours", "probe"] = "prototype",
) -> Measurement:
    """Position between FDR and Original: (accuracy of a view - FDR's) / (Original's - FDR's).

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed, which are viewed in the same way.
        view: `prototype` (FPAe), `neighbours` or `probe`; see `forget_view_accuracy`.

    Returns:
        A number without bounds: 0 is as retrained, 1 as the original, below 0 damaged.

    Raises:
        MetricError: If Original's accuracy equals FDR's, or one of them cannot be computed.

    Source: own, from ERwP's reading of FPAe (FDR's value is the yardstick). Known weakness: as a ratio it is unstable;
    where Original and FDR are close, a single test image moves it far.
    """
    judged, original, fdr = (
        float(view_hits(file, view).mean()) for file in (features, references.original, references.fdr)
    )
    return Measurement(relative_position(judged, fdr, original), {"judged": judged, "original": original, "fdr": fdr})
