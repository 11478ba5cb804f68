from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.recovery import forget_neighbour_accuracy, neighbour_classes


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_it_finds_what_scikit_learn_finds(neighbours: int, distance: str) -> None:
    known, labels = blobs(0, 6, 20, 5, spread=2.0)
    rows = blobs(1, 6, 300, 5, spread=2.0)[0]
    reference = KNeighborsClassifier(neighbours, metric=distance, algorithm="brute").fit(known, labels)

    assert (neighbour_classes(known, labels, rows, neighbours, distance) == reference.predict(rows)).all()


def test_by_hand() -> None:
    known, labels = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 2])
    rows = np.array([[0.4], [9.0], [11.2]])

    assert neighbour_classes(known, labels, rows, 1, "euclidean").tolist() == [0, 1, 2]
    # 9.0 has 10, 11 and 1 for neighbours, one vote each: the lowest class wins.
    assert neighbour_classes(known, labels, rows, 3, "euclidean").tolist() == [0, 0, 0]


def test_of_equally_near_images_the_first_count() -> None:
    known, labels = np.array([[-1.0], [1.0], [1.0]]), np.array([5, 3, 4])

    assert neighbour_classes(known, labels, np.array([[0.0]]), 1, "euclidean").tolist() == [5]
    assert neighbour_classes(known, labels, np.array([[1.0]]), 1, "euclidean").tolist() == [3]
    assert neighbour_classes(np.repeat(known, 2, 0), np.repeat(labels, 2), np.array([[0.0]]), 2, "euclidean") == [5]


def test_cosine_sees_directions_alone() -> None:
    known, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])

    assert neighbour_classes(known, labels, np.array([[9.0, 1.0], [0.1, 0.9]]), 1, "cosine").tolist() == [0, 1]


def test_the_metric_judges_forget_images_among_all_classes() -> None:
    features = np.array([[0.0], [5.0], [10.0], [10.2]])
    labels = np.array([0, 1, 2, 2])
    file = feature_file(features, labels, forget=[2], num_classes=3, limited=([[0.0], [5.0], [10.1]], [0, 1, 2]))

    found = forget_neighbour_accuracy(file)

    assert found == 1.0
    assert found.hits is not None
    assert found.hits.tolist() == [True, True]


def test_more_neighbours_than_limited_images_are_refused() -> None:
    file = feature_file(*blobs(0, 3, 2, 4), forget=[2], num_classes=3)

    with pytest.raises(MetricError, match="7 nearest of 6 limited images asked for"):
        forget_neighbour_accuracy(file, neighbours=7)


def test_features_that_are_no_numbers_are_named() -> None:
    features, labels = blobs(0, 3, 2, 4)
    features[:2] = np.nan
    file = feature_file(features, labels, forget=[2], num_classes=3)

    with pytest.raises(MetricError, match="2 of 6 rows of limited_features are not finite"):
        forget_neighbour_accuracy(file)


def test_a_class_without_test_images_is_an_error() -> None:
    features, labels = blobs(0, 3, 2, 4)
    file = feature_file(features[labels < 2], labels[labels < 2], forget=[2], num_classes=3, limited=(features, labels))

    with pytest.raises(MetricError, match=r"no test image of classes \[2\]"):
        forget_neighbour_accuracy(file)
