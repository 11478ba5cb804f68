"""How far a model is from the published accuracy of its network."""

from __future__ import annotations

import csv
from importlib.resources import files

import pytest
from torchvision.models import get_model_weights

from unlearnbench.models.libraries import published_accuracy
from unlearnbench.models.libraries.published_accuracy import beside_published

CHARTED = {
    "cifar100": {"resnet20": "resnet20_cifar100", "resnet56": "resnet56_cifar100", "resnet164": "resnet164bn_cifar100"},
    "cub200": {"resnet18": "resnet18_cub"},
}


def test_the_accuracy_counts_both_kinds_of_classes_by_their_images() -> None:
    beside = beside_published("cifar100", "resnet20", (0.6825, 2000), (0.6595, 8000))
    assert beside is not None
    assert beside.accuracy == pytest.approx(0.6641)
    assert beside.shortfall == pytest.approx(0.0395)
    assert not beside.under_trained
    short = beside_published("cifar100", "resnet20", (0.5753, 2000), (0.5517, 8000))
    assert short is not None
    assert short.under_trained
    assert short.as_json()["source"] == "pytorchcv"


def test_a_network_that_nobody_publishes_has_no_distance() -> None:
    assert beside_published("digits", "digits_net", (0.9, 20), (0.9, 80)) is None


def test_the_figures_are_those_of_the_installed_libraries() -> None:
    """A later version of a library may publish better weights; the figures here then want another look."""
    text = files("pytorchcv").joinpath("models/common/model_metainfos.csv").read_text(encoding="utf-8")
    errors = {row["model_name"]: row["error_value"] for row in csv.DictReader(text.splitlines())}
    for (dataset, architecture), (accuracy, source) in published_accuracy._ACCURACIES.items():
        if source == "pytorchcv":
            assert accuracy == pytest.approx(1 - int(errors[CHARTED[dataset][architecture]]) / 1e4)
        else:
            weights = get_model_weights(architecture)["IMAGENET1K_V1"]
            assert accuracy == pytest.approx(weights.meta["_metrics"]["ImageNet-1K"]["acc@1"] / 100)
