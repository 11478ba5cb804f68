"""Retain prototype accuracy, the normalised gap and the speed-up."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.cost import speed_up
from unlearnbench.metrics.builtin.prototype import (
    forget_prototype_accuracy,
    normalised_gap,
    relative_position,
    retain_prototype_accuracy,
)
from unlearnbench.metrics.measurement import Costs, References


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


def test_a_training_class_without_images_is_named() -> None:
    file = feature_file([[0.0], [1.0]], [0, 1], forget=[1], num_classes=2, limited=([[0.0]], [0]))

    with pytest.raises(MetricError, match=r"no training image of classes \[1\] in the full data"):
        retain_prototype_accuracy(file)


def test_features_that_are_no_numbers_are_an_error() -> None:
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
    original, judged, retrained = files

    found = normalised_gap(judged, References(original, retrained), distance="cosine")

    values = [float(forget_prototype_accuracy(file, distance="cosine")) for file in (judged, retrained, original)]
    assert found == pytest.approx(relative_position(*values))
    assert found.details == {"judged": values[0], "retrained": values[1], "original": values[2]}


def test_speed_up_counts_both_kinds() -> None:
    found = speed_up(Costs(judged={"forget": 10, "retain": 40}, retrained={"forget": 0, "retain": 5000}))

    assert found == 100.0
    assert found.details["judged"] == {"forget": 10, "retain": 40}


def test_a_method_that_reads_nothing_has_no_speed_up() -> None:
    with pytest.raises(MetricError, match="no training image was read"):
        speed_up(Costs(judged={"forget": 0, "retain": 0}, retrained={"forget": 0, "retain": 5000}))
