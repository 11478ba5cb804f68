"""FPAe, retain prototype accuracy and the normalised gap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_distances
from sklearn.neighbors import NearestCentroid
from support.feature_files import blobs, feature_file, write_features_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin import prototype
from unlearnbench.metrics.builtin.prototype import (
    Distance,
    forget_prototype_accuracy,
    normalised_gap,
    prototype_accuracy,
    relative_position,
    retain_prototype_accuracy,
)
from unlearnbench.metrics.features import open_features
from unlearnbench.metrics.measurement import References


def clouds(seed: int, spread: float = 2.0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return training features and labels, test features and labels, of five overlapping classes."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(5, 7))
    train_labels, test_labels = random.integers(5, size=300), random.integers(5, size=400)
    train = centres[train_labels] + spread * random.normal(size=(300, 7))
    test = centres[test_labels] + spread * random.normal(size=(400, 7))
    return train, train_labels, test.astype(np.float32), test_labels


def means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    return np.stack([features[labels == label].mean(axis=0) for label in range(labels.max() + 1)])


@pytest.mark.parametrize("chunk", [4096, 37])
@pytest.mark.parametrize("seed", [0, 1])
def test_euclidean_is_the_nearest_centroid_of_scikit_learn(
    monkeypatch: pytest.MonkeyPatch, seed: int, chunk: int
) -> None:
    monkeypatch.setattr(prototype, "CHUNK", chunk)
    train, train_labels, test, test_labels = clouds(seed)
    expected = NearestCentroid().fit(train, train_labels).score(test, test_labels)
    assert 0.2 < expected < 0.9
    assert prototype_accuracy(test, test_labels, means(train, train_labels)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", [0, 1])
def test_cosine_is_that_of_scikit_learn(seed: int) -> None:
    train, train_labels, test, test_labels = clouds(seed)
    prototypes = means(train, train_labels)
    expected = (cosine_distances(test, prototypes).argmin(axis=1) == test_labels).mean()
    found = prototype_accuracy(test, test_labels, prototypes, "cosine")
    assert found == pytest.approx(expected, abs=1e-12)
    assert found != prototype_accuracy(test, test_labels, prototypes, "euclidean")


def test_prototype_accuracy_counted_by_hand() -> None:
    prototypes = np.array([[0.0, 1.0], [10.0, 0.0]])
    features = np.array([[0, 2], [6, 0], [4, 0], [1, 9]], dtype=np.float32)
    # The Euclidean classes are 0, 1, 0, 0 and the cosine classes are 0, 1, 1, 0.
    assert prototype_accuracy(features, np.array([0, 1, 0, 0]), prototypes, "euclidean") == 1.0
    assert prototype_accuracy(features, np.array([0, 1, 0, 0]), prototypes, "cosine") == 0.75
    assert prototype_accuracy(features, np.array([1, 1, 1, 1]), prototypes, "euclidean") == 0.25


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_of_equally_near_prototypes_the_lowest_class_counts(distance: Distance) -> None:
    prototypes = np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    features = np.array([[2, 2], [0, 3]], dtype=np.float32)
    assert prototype_accuracy(features, np.array([0, 0]), prototypes, distance) == 1.0
    assert prototype_accuracy(features, np.array([1, 2]), prototypes, distance) == 0.0


def test_a_zero_vector_is_equally_far_from_all_in_angle() -> None:
    prototypes = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert prototype_accuracy(np.zeros((1, 2), np.float32), np.array([0]), prototypes, "cosine") == 1.0
    zero_prototype = np.array([[0.0, 0.0], [0.0, 1.0]])
    assert prototype_accuracy(np.array([[0, 5]], np.float32), np.array([1]), zero_prototype, "cosine") == 1.0


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
def test_the_scale_of_the_features_does_not_matter(distance: Distance) -> None:
    train, train_labels, test, test_labels = clouds(0)
    prototypes = means(train, train_labels)
    expected = prototype_accuracy(test, test_labels, prototypes, distance)
    assert prototype_accuracy(test * 1024, test_labels, prototypes * 1024, distance) == expected


@pytest.mark.parametrize(("rows", "labels", "width"), [(0, 0, 3), (2, 3, 3), (2, 2, 4)])
def test_arrays_that_do_not_fit_are_refused(rows: int, labels: int, width: int) -> None:
    with pytest.raises(MetricError) as caught:
        prototype_accuracy(np.zeros((rows, 3), np.float32), np.zeros(labels, np.int64), np.zeros((5, width)))
    assert str(caught.value) == (
        f"prototype accuracy: features ({rows}, 3), labels ({labels},) and prototypes (5, {width}) "
        "do not fit (N, D), (N,) and (K, D) with N > 0"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["features", "prototypes"])
def test_what_is_not_finite_is_refused(value: float, where: str) -> None:
    features, prototypes = np.zeros((2, 3), np.float32), np.zeros((4, 3))
    (features if where == "features" else prototypes)[1, 1] = value
    with pytest.raises(MetricError) as caught:
        prototype_accuracy(features, np.array([0, 0]), prototypes)
    assert str(caught.value) == "prototype accuracy: features or prototypes are not finite"


def test_all_classes_compete_and_only_forget_images_count(tmp_path: Path) -> None:
    # Of the images of forget class 2, the first is near its own prototype and the second near class 0.
    path = write_features_file(
        tmp_path / "features.h5",
        labels=[0, 2, 1, 2],
        features=[[9, 9], [0, 9], [9, 9], [1, 0]],
        prototypes=[[0, 0], [9, 0], [0, 10]],
        limited_prototypes=[[5, 5], [0, 8], [1, 1]],
        forget_classes=[2],
        num_classes=3,
    )
    with open_features(path) as features:
        assert forget_prototype_accuracy(features) == 0.5
        # With the limited data the first image is nearest to class 1 and the second to class 2.
        assert forget_prototype_accuracy(features, prototypes="limited") == 0.5
        # By angle both images are nearest to 2 and 1 respectively; then to 1, and to 0 and 2, which tie.
        assert forget_prototype_accuracy(features, distance="cosine") == 0.5
        assert forget_prototype_accuracy(features, prototypes="limited", distance="cosine") == 0.0


def test_a_class_without_a_test_image_is_an_error(tmp_path: Path) -> None:
    path = write_features_file(tmp_path / "features.h5", labels=[0, 1], forget_classes=[2], num_classes=3)
    with open_features(path) as features, pytest.raises(MetricError) as caught:
        forget_prototype_accuracy(features)
    assert str(caught.value) == "no test image of classes [2]"


def test_a_class_without_a_training_image_has_no_prototype(tmp_path: Path) -> None:
    path = write_features_file(
        tmp_path / "features.h5", labels=[0, 1, 2], forget_classes=[2], num_classes=3, counts=[4, 0, 4]
    )
    with open_features(path) as features, pytest.raises(MetricError) as caught:
        forget_prototype_accuracy(features)
    assert str(caught.value) == "no training image of classes [1] in the full data"


@pytest.mark.parametrize("source", ["full", "limited"])
def test_prototype_accuracy_is_scikit_learns_nearest_centroid(source: str) -> None:
    features, labels = blobs(0, 6, 40, 5, spread=2.0)
    parts = {"full": blobs(1, 6, 50, 5, spread=2.0), "limited": blobs(2, 6, 5, 5, spread=2.0)}
    file = feature_file(features, labels, forget=[4, 5], num_classes=6, limited=parts["limited"], full=parts["full"])
    predicted = NearestCentroid().fit(*parts[source]).predict(features)

    hits = predicted == labels
    assert retain_prototype_accuracy(file, prototypes=source) == pytest.approx(hits[labels < 4].mean())
    assert forget_prototype_accuracy(file, prototypes=source) == pytest.approx(hits[labels > 3].mean())


def test_hits_stand_beside_the_share() -> None:
    file = feature_file([[0.0], [9.0], [1.0]], [0, 0, 1], forget=[1], num_classes=2, limited=([[0.0], [2.0]], [0, 1]))

    found = retain_prototype_accuracy(file)

    assert found == 0.5
    assert found.hits is not None
    assert found.hits.tolist() == [True, False]


def test_retain_prototype_accuracy_names_a_training_class_without_images() -> None:
    file = feature_file([[0.0], [1.0]], [0, 1], forget=[1], num_classes=2, limited=([[0.0]], [0]))

    with pytest.raises(MetricError, match=r"no training image of classes \[1\] in the full data"):
        retain_prototype_accuracy(file)


def test_retain_prototype_accuracy_refuses_features_that_are_no_numbers() -> None:
    file = feature_file([[np.nan], [1.0]], [0, 1], forget=[1], num_classes=2, limited=([[0.0], [1.0]], [0, 1]))

    with pytest.raises(MetricError, match="not finite"):
        retain_prototype_accuracy(file)


@pytest.mark.parametrize(("value", "expected"), [(0.4, 0.0), (0.8, 1.0), (0.6, 0.5), (0.2, -0.5), (1.0, 1.5)])
def test_the_gap_is_zero_at_fdr_and_one_at_original(value: float, expected: float) -> None:
    assert relative_position(value, 0.4, 0.8) == pytest.approx(expected)


def test_equal_references_give_no_scale() -> None:
    file = feature_file(*blobs(0, 3, 5, 2), forget=[2], num_classes=3)

    with pytest.raises(MetricError, match="Original and FDR have the same value"):
        normalised_gap(file, References(file, file))


def test_the_gap_takes_all_three_files_with_one_protocol() -> None:
    features, labels = blobs(0, 4, 30, 3, spread=1.5)
    files = []
    for noise in (0.0, 0.7, 1.5):
        moved = features + noise * np.random.default_rng(3).normal(size=features.shape)
        files.append(feature_file(moved, labels, forget=[2, 3], num_classes=4))
    original, judged, fdr = files

    found = normalised_gap(judged, References(original, fdr), distance="cosine")

    values = [float(forget_prototype_accuracy(file, distance="cosine")) for file in (judged, fdr, original)]
    assert found == pytest.approx(relative_position(*values))
    assert found.details == {"judged": values[0], "fdr": values[1], "original": values[2]}
