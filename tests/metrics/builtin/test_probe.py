from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.recovery import LinearProbe, probe_accuracies, probe_recovery
from unlearnbench.metrics.measurement import References


@pytest.mark.parametrize(("per_class", "width"), [(30, 6), (4, 50)])
def test_it_predicts_what_scikit_learns_ridge_classifier_does(per_class: int, width: int) -> None:
    inputs, labels = blobs(0, 5, per_class, width, spread=1.5)
    keep = ~((labels == 4) & (np.arange(len(labels)) > len(labels) // 2))
    inputs, labels = inputs[keep].astype(np.float64), labels[keep]
    test = blobs(1, 5, 40, width, spread=1.5)[0].astype(np.float64)

    weights = len(labels) / (5 * np.bincount(labels)[labels])
    mean = np.average(inputs, axis=0, weights=weights)
    scale = np.sqrt(np.average((inputs - mean) ** 2, axis=0, weights=weights))
    reference = RidgeClassifier(alpha=0.01 * len(labels), class_weight="balanced")
    reference.fit((inputs - mean) / scale, labels)

    found = LinearProbe(inputs, labels, 0.01).predict(test)
    assert (found == reference.predict((test - mean) / scale)).all()


def test_two_points_by_hand() -> None:
    probe = LinearProbe(np.array([[0.0], [2.0]]), np.array([3, 7]), ridge=0.01)

    # The border lies in the middle; there the scores are equal and the lower class wins.
    assert probe.predict(np.array([[0.9], [1.0], [1.1]])).tolist() == [3, 3, 7]


def test_a_dead_feature_does_no_harm() -> None:
    inputs = np.array([[0.0, 5.0], [2.0, 5.0]])

    assert LinearProbe(inputs, np.array([0, 1]), 0.01).predict(np.array([[2.0, 9.0]])).tolist() == [1]


def test_a_single_class_is_always_found() -> None:
    assert LinearProbe(np.ones((3, 2)), np.array([4, 4, 4]), 0.01).predict(np.zeros((2, 2))).tolist() == [4, 4]


def test_recovery_is_the_difference_to_fdr_on_the_same_images() -> None:
    features, labels = blobs(0, 5, 30, 8)
    knows = feature_file(features, labels, forget=[4], num_classes=5)
    noise = features.copy()
    noise[labels == 4] = np.random.default_rng(0).normal(size=(30, 8))
    lost = feature_file(noise, labels, forget=[4], num_classes=5)

    recovery = probe_recovery(knows, References(knows, lost), shots=5)

    assert recovery == pytest.approx(recovery.details["judged"] - recovery.details["retrained"])
    assert recovery > 0.3
    assert probe_recovery(lost, References(knows, lost), shots=5) == 0.0


def test_without_a_number_of_shots_all_limited_images_are_used_once() -> None:
    file = feature_file(*blobs(0, 3, 10, 4), forget=[2], num_classes=3)

    assert len(probe_accuracies(file, None, 5, 0.01)) == 1
    assert len(probe_accuracies(file, 2, 5, 0.01)) == 5


def test_more_shots_than_images_are_refused() -> None:
    file = feature_file(*blobs(0, 3, 10, 4), forget=[1, 2], num_classes=3)

    with pytest.raises(MetricError, match="11 images per forget class asked for; class 1 has 10"):
        probe_recovery(file, References(file, file), shots=11)


def test_features_that_are_no_numbers_are_named() -> None:
    features, labels = blobs(0, 3, 10, 4)
    features[2] = np.inf
    file = feature_file(features, labels, forget=[2], num_classes=3, limited=blobs(1, 3, 10, 4))

    with pytest.raises(MetricError, match="1 of 10 rows of test_features are not finite"):
        probe_recovery(file, References(file, file))
