from __future__ import annotations

import numpy as np
import pytest
import torch
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.recovery import few_shot_relearning, prototype_rows
from unlearnbench.metrics.features import FeatureFile

WEIGHT = [[3.0, 0.0], [0.0, 3.0], [-1.0, -1.0]]


def with_classifier(weight: list[list[float]], bias: list[float], outputs: list[int]) -> FeatureFile:
    """Three classes in the plane at 0, 90 and 225 degrees; 2 is forgotten."""
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


def test_it_is_a_torch_layer_with_replaced_rows() -> None:
    features, labels = blobs(0, 5, 12, 6, spread=1.2)
    generator = np.random.default_rng(1)
    weight, bias = generator.normal(size=(6, 6)), generator.normal(size=6)
    outputs = list(range(6))  # The output 5 is a new class, as FOLMRCSC has one.
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


def test_rows_by_hand() -> None:
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


def test_features_that_are_no_numbers_are_named() -> None:
    features, labels = blobs(0, 3, 4, 2)
    features[0] = np.nan

    with pytest.raises(MetricError, match="1 of 12 rows of limited_features are not finite"):
        few_shot_relearning(feature_file(features, labels, forget=[2], num_classes=3), shots=1)
