"""The three views of the last stage's features, and the positions that they give."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.views import FOLDS, folds, forget_view_accuracy, position
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References
from unlearnbench.terms import VIEWS

FORGET = [3, 4]


def file(noise: float, seed: int = 0, *, probe: bool = True) -> FeatureFile:
    """Return a file of 5 classes with 30 test and 40 probe images each; more noise means that less is known."""
    rows, labels = blobs(seed, 5, 30, 6, spread=noise)
    known = blobs(seed + 50, 5, 40, 6, spread=noise)
    return feature_file(rows, labels, forget=FORGET, num_classes=5, probe=known if probe else None)


def predicted(view: str, known: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return what scikit-learn's form of a view finds."""
    known, rows = known.astype(np.float64), rows.astype(np.float64)
    if view == "neighbours":
        unit = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (known, rows)]
        return KNeighborsClassifier(20, algorithm="brute").fit(unit[0], labels).predict(unit[1])
    mean, scale = known.mean(axis=0), known.std(axis=0)  # each class has the same number of images
    probe = RidgeClassifier(alpha=0.01 * len(labels)).fit((known - mean) / scale, labels)
    return probe.predict((rows - mean) / scale)


@pytest.mark.parametrize("view", ["neighbours", "probe"])
def test_a_view_that_learned_from_the_probe_part_is_scikit_learn_s(view: str) -> None:
    features = file(1.5)
    wanted = np.isin(features.array("test/labels"), FORGET)
    rows, labels = features.array("test/features")[wanted], features.array("test/labels")[wanted]
    known = features.array("probe/features"), features.array("probe/labels")
    expected = predicted(view, *known, rows) == labels

    found = forget_view_accuracy(features, view=view)
    assert 0.3 < found < 0.9
    assert found == pytest.approx(expected.mean(), abs=1e-9)
    assert found.hits is not None
    assert (found.hits == expected).all()


def test_the_prototype_view_is_fpae() -> None:
    features = file(1.5)
    labels = features.array("test/labels")
    centroids = NearestCentroid().fit(features.array("limited/features").astype(np.float64), labels)
    expected = centroids.predict(features.array("test/features")[labels >= 3]) == labels[labels >= 3]

    assert forget_view_accuracy(features, view="prototype") == pytest.approx(expected.mean(), abs=1e-9)


@pytest.mark.parametrize("view", ["neighbours", "probe"])
def test_without_a_probe_part_test_images_are_read_by_what_learned_from_other_folds(view: str) -> None:
    features = file(1.5, probe=False)
    rows, labels = features.array("test/features"), features.array("test/labels")
    fold = folds(labels, features.seed)
    found = np.empty(len(labels), dtype=np.int64)
    for number in range(FOLDS):
        held = fold == number
        found[held] = predicted(view, rows[~held], labels[~held], rows[held])
    forget = np.isin(labels, FORGET)

    assert forget_view_accuracy(features, view=view) == pytest.approx((found == labels)[forget].mean(), abs=1e-9)


def test_a_class_is_spread_over_the_folds_evenly() -> None:
    labels = np.repeat([0, 1, 2], [10, 7, 3])
    found = folds(labels, 3)

    assert np.bincount(found[labels == 0]).tolist() == [2, 2, 2, 2, 2]
    assert np.bincount(found[labels == 1], minlength=5).tolist() == [2, 2, 1, 1, 1]
    assert not np.array_equal(found, folds(labels, 4))


def test_a_class_of_one_image_cannot_be_cross_fitted() -> None:
    with pytest.raises(MetricError, match="class 1 has a single test image; cross-fitting needs 2"):
        folds(np.array([0, 0, 1]), 0)


def test_twenty_neighbours_by_hand() -> None:
    """Class 1 has 21 images at one angle and class 0 has 19 there: the nearest 20 are all alike, the first count."""
    angle = np.array([[1.0, 1.0]])
    known = np.concatenate([np.repeat(angle, 19, axis=0), np.repeat(3 * angle, 21, axis=0)])
    labels = np.repeat([0, 1], [19, 21])
    test = feature_file([[2, 2], [5, 5]], [1, 0], forget=[1, 0], num_classes=3, probe=(known, labels),
                        limited=([[1, 1], [1, 1], [1, 0]], [0, 1, 2]))  # fmt: skip

    # 19 of class 0 and the first of class 1 vote, so that both test images are called 0.
    assert forget_view_accuracy(test, view="neighbours") == 0.5


@pytest.mark.parametrize("view", VIEWS)
def test_a_position_lies_between_fdr_and_original(view: str) -> None:
    judged, original, fdr = file(2.0, 1), file(0.8, 2), file(4.0, 3)
    values = [float(forget_view_accuracy(found, view=view)) for found in (judged, original, fdr)]

    found = position(judged, References(original, fdr), view=view)
    assert found == pytest.approx((values[0] - values[2]) / (values[1] - values[2]), abs=1e-12)
    assert found.details == {"judged": values[0], "original": values[1], "fdr": values[2]}
    assert position(original, References(original, fdr), view=view) == 1.0
    assert position(fdr, References(original, fdr), view=view) == 0.0


def test_a_position_by_hand() -> None:
    """Of four forget images Original finds 4, FDR 2 and the judged model 1, so that it lies at (1 - 2) / (4 - 2)."""

    def found(hits: int) -> FeatureFile:
        rows = [[1.0]] * hits + [[-1.0]] * (4 - hits)
        return feature_file(rows, [1] * 4, forget=[1], num_classes=2, limited=([[-1.0], [1.0]], [0, 1]))

    assert position(found(1), References(found(4), found(2))) == -0.5


def test_references_that_are_alike_have_no_scale() -> None:
    with pytest.raises(MetricError, match="Original and FDR have the same value"):
        position(file(2.0), References(file(2.0), file(2.0)))
