"""The recovery metrics: linear probe, nearest neighbours and few-shot relearning."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.recovery import (
    LinearProbe,
    few_shot_relearning,
    forget_neighbour_accuracy,
    neighbour_classes,
    probe_accuracies,
    probe_recovery,
    prototype_rows,
)
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References


@pytest.mark.parametrize(("per_class", "width"), [(30, 6), (4, 50)])
def test_the_probe_predicts_what_scikit_learns_ridge_classifier_does(per_class: int, width: int) -> None:
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


def test_the_probe_of_two_points_by_hand() -> None:
    probe = LinearProbe(np.array([[0.0], [2.0]]), np.array([3, 7]), ridge=0.01)

    # The boundary lies in the middle, where the scores are equal and the lower class wins.
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

    assert recovery == pytest.approx(recovery.details["judged"] - recovery.details["fdr"])
    assert recovery > 0.3
    assert probe_recovery(lost, References(knows, lost), shots=5) == 0.0


def test_without_a_number_of_shots_all_limited_images_are_used_once() -> None:
    file = feature_file(*blobs(0, 3, 10, 4), forget=[2], num_classes=3)

    assert len(probe_accuracies(file, None, 5, 0.01)) == 1
    assert len(probe_accuracies(file, 2, 5, 0.01)) == 5


def test_the_probe_refuses_more_shots_than_images() -> None:
    file = feature_file(*blobs(0, 3, 10, 4), forget=[1, 2], num_classes=3)

    with pytest.raises(MetricError, match="11 images per forget class asked for; class 1 has 10"):
        probe_recovery(file, References(file, file), shots=11)


def test_the_probe_names_features_that_are_no_numbers() -> None:
    features, labels = blobs(0, 3, 10, 4)
    features[2] = np.inf
    file = feature_file(features, labels, forget=[2], num_classes=3, limited=blobs(1, 3, 10, 4))

    with pytest.raises(MetricError, match="1 of 10 rows of test_features are not finite"):
        probe_recovery(file, References(file, file))


@pytest.mark.parametrize("distance", ["euclidean", "cosine"])
@pytest.mark.parametrize("neighbours", [1, 3, 20])
def test_neighbours_are_those_of_scikit_learn(neighbours: int, distance: str) -> None:
    known, labels = blobs(0, 6, 20, 5, spread=2.0)
    rows = blobs(1, 6, 300, 5, spread=2.0)[0]
    reference = KNeighborsClassifier(neighbours, metric=distance, algorithm="brute").fit(known, labels)

    assert (neighbour_classes(known, labels, rows, neighbours, distance) == reference.predict(rows)).all()


def test_neighbours_by_hand() -> None:
    known, labels = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array([0, 0, 1, 2])
    rows = np.array([[0.4], [9.0], [11.2]])

    assert neighbour_classes(known, labels, rows, 1, "euclidean").tolist() == [0, 1, 2]
    # The neighbours of 9.0 are 10, 11 and 1 with one vote each, so that the lowest class wins.
    assert neighbour_classes(known, labels, rows, 3, "euclidean").tolist() == [0, 0, 0]


def test_of_equally_near_images_the_first_count() -> None:
    known, labels = np.array([[-1.0], [1.0], [1.0]]), np.array([5, 3, 4])

    assert neighbour_classes(known, labels, np.array([[0.0]]), 1, "euclidean").tolist() == [5]
    assert neighbour_classes(known, labels, np.array([[1.0]]), 1, "euclidean").tolist() == [3]
    assert neighbour_classes(np.repeat(known, 2, 0), np.repeat(labels, 2), np.array([[0.0]]), 2, "euclidean") == [5]


def test_cosine_sees_directions_alone() -> None:
    known, labels = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0, 1])

    assert neighbour_classes(known, labels, np.array([[9.0, 1.0], [0.1, 0.9]]), 1, "cosine").tolist() == [0, 1]


def test_neighbour_accuracy_judges_forget_images_among_all_classes() -> None:
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


def test_neighbours_among_features_that_are_no_numbers_are_refused() -> None:
    features, labels = blobs(0, 3, 2, 4)
    features[:2] = np.nan
    file = feature_file(features, labels, forget=[2], num_classes=3)

    with pytest.raises(MetricError, match="2 of 6 rows of limited_features are not finite"):
        forget_neighbour_accuracy(file)


def test_neighbour_accuracy_needs_test_images_of_each_class() -> None:
    features, labels = blobs(0, 3, 2, 4)
    file = feature_file(features[labels < 2], labels[labels < 2], forget=[2], num_classes=3, limited=(features, labels))

    with pytest.raises(MetricError, match=r"no test image of classes \[2\]"):
        forget_neighbour_accuracy(file)


WEIGHT = [[3.0, 0.0], [0.0, 3.0], [-1.0, -1.0]]


def with_classifier(weight: list[list[float]], bias: list[float], outputs: list[int]) -> FeatureFile:
    """Return three classes in the plane at 0, 90 and 225 degrees, of which 2 is the forget class."""
    features = np.array([[2.0, 0.1], [0.1, 2.0], [-1.0, -1.1], [-1.2, -1.0]])
    labels = np.array([0, 1, 2, 2])
    logits = features @ np.array(weight).T + np.array(bias)
    return feature_file(
        features, labels, forget=[2], num_classes=3, outputs=outputs, logits=logits, weight=weight, bias=bias
    )


def test_a_deleted_row_comes_back_with_one_image() -> None:
    deleted = with_classifier(WEIGHT[:2], [0.0, 0.0], [0, 1])

    found = few_shot_relearning(deleted, shots=1)

    assert found == 1.0
    assert found.details["retain_accuracy"] == 1.0


def test_relearning_is_a_torch_layer_with_replaced_rows() -> None:
    features, labels = blobs(0, 5, 12, 6, spread=1.2)
    generator = np.random.default_rng(1)
    weight, bias = generator.normal(size=(6, 6)), generator.normal(size=6)
    outputs = list(range(6))  # The output 5 stands for a new class, as with FOLMRCSC.
    file = feature_file(
        features, labels, forget=[1, 4], num_classes=5, outputs=outputs, logits=features @ weight.T + bias,
        limited_logits=features @ weight.T + bias, weight=weight, bias=bias,
    )  # fmt: skip

    layer = torch.nn.Linear(6, 6).double()
    retain = [0, 2, 3]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight))
        layer.bias.copy_(torch.from_numpy(bias))
        for label in (1, 4):
            mean = torch.from_numpy(features[labels == label]).double().mean(dim=0)
            layer.weight[label] = torch.nn.functional.normalize(mean, dim=0) * layer.weight[retain].norm(dim=1).mean()
            layer.bias[label] = layer.bias[retain].mean()
        predicted = layer(torch.from_numpy(features).double()).argmax(dim=1).numpy()
    forget = np.isin(labels, [1, 4])

    found = few_shot_relearning(file, shots=None)

    assert found == pytest.approx((predicted == labels)[forget].mean())
    assert found.details["retain_accuracy"] == pytest.approx((predicted == labels)[~forget].mean())


def test_prototype_rows_by_hand() -> None:
    rows = prototype_rows(np.array([[3.0, 0.0], [3.0, 8.0], [0.0, 0.0]]), np.array([7, 7, 9]), np.array([7, 9]), 10.0)

    assert rows == pytest.approx(np.array([[6.0, 8.0], [0.0, 0.0]]))


def test_equal_logits_go_to_the_lowest_class() -> None:
    features = np.zeros((3, 2))
    file = feature_file(features, [0, 1, 2], forget=[0], num_classes=3, logits=np.zeros((3, 3)), weight=np.eye(3, 2))

    assert few_shot_relearning(file, shots=1) == 1.0


def test_the_draws_depend_on_the_seed_alone() -> None:
    features, labels = blobs(0, 5, 12, 3, spread=2.0)
    first, again, other = (feature_file(features, labels, forget=[4], num_classes=5, seed=seed) for seed in (0, 0, 1))

    assert few_shot_relearning(first, shots=1).details == few_shot_relearning(again, shots=1).details
    assert few_shot_relearning(first, shots=1).details != few_shot_relearning(other, shots=1).details


def test_a_model_without_retain_outputs_is_refused() -> None:
    file = feature_file(
        np.ones((2, 2)), [0, 1], forget=[1], num_classes=2, outputs=[1], logits=np.ones((2, 1)), weight=np.ones((1, 2))
    )

    with pytest.raises(MetricError, match="the model has no output for a retain class"):
        few_shot_relearning(file, shots=1)


def test_relearning_from_features_that_are_no_numbers_is_refused() -> None:
    features, labels = blobs(0, 3, 4, 2)
    features[0] = np.nan

    with pytest.raises(MetricError, match="1 of 12 rows of limited_features are not finite"):
        few_shot_relearning(feature_file(features, labels, forget=[2], num_classes=3), shots=1)
