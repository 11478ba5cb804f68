"""Metrics at every stage of the network."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import NearestCentroid
from support.feature_files import blobs, feature_file

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.layers import (
    REST,
    layer_cka,
    layer_probe_recovery,
    layer_prototype_gap,
)
from unlearnbench.metrics.builtin.views import FOLDS, folds
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References
from unlearnbench.seeds import derived_seed

FORGET = [3, 4]


def file(noise: tuple[float, float], seed: int, stages: int = 1) -> FeatureFile:
    """Return a file of 5 classes with 30 test images each and the given noise in the first and in the last stage."""
    last, labels = blobs(seed, 5, 30, 6, spread=noise[1])
    first = blobs(seed + 1, 5, 30, 4, spread=noise[0])[0].astype(np.float16)
    return feature_file(last, labels, forget=FORGET, num_classes=5, stages=[(first, first)] * stages)


JUDGED, ORIGINAL, FDR = file((1.0, 2.0), 0), file((1.0, 0.5), 10), file((1.2, 3.0), 20)
BOTH = References(ORIGINAL, FDR)


def stage(features: FeatureFile, number: int) -> np.ndarray:
    name = "test/stages/0" if number == 0 else "test/features"
    return features.array(name).astype(np.float64)


def test_the_prototype_gap_is_that_of_the_nearest_centroids_of_each_stage() -> None:
    found = layer_prototype_gap(JUDGED, BOTH)
    labels = JUDGED.array("test/labels")
    forget = np.isin(labels, FORGET)
    gaps = []
    for number, name in enumerate(JUDGED.stages):
        accuracies = []
        for features in (JUDGED, ORIGINAL, FDR):
            rows = stage(features, number)
            predicted = NearestCentroid().fit(rows, labels).predict(rows[forget])
            accuracies.append((predicted == labels[forget]).mean())
        assert list(found.details["by_stage"][name].values()) == pytest.approx(accuracies, abs=1e-9)
        gaps.append(accuracies[0] - accuracies[2])
    assert found == pytest.approx(max(gaps, key=abs), abs=1e-9)
    assert found.details["stage"] == "classifier input"


def test_the_probe_recovery_is_that_of_ridge_classifiers_at_each_stage() -> None:
    found = layer_probe_recovery(JUDGED, BOTH)
    labels = JUDGED.array("test/labels")
    forget = np.isin(labels, FORGET)
    others = np.flatnonzero(~forget)
    rest = np.random.default_rng(derived_seed(0, "layer rest")).permutation(others)[: forget.sum()]
    chosen = np.sort(np.concatenate([np.flatnonzero(forget), rest]))
    truth = np.where(forget, labels, REST)[chosen]
    fold = folds(truth, 0)
    for number, name in enumerate(JUDGED.stages):
        accuracies = [
            balanced_accuracy_score(truth, cross_fitted(stage(features, number)[chosen], truth, fold))
            for features in (JUDGED, ORIGINAL, FDR)
        ]
        assert list(found.details["by_stage"][name].values()) == pytest.approx(accuracies, abs=1e-9)
    known = found.details["by_stage"]["classifier input"]
    assert found == pytest.approx(known["judged"] - known["fdr"], abs=1e-9)
    assert found > 0.1


def cross_fitted(rows: np.ndarray, labels: np.ndarray, fold: np.ndarray) -> np.ndarray:
    found = np.empty_like(labels)
    for number in range(FOLDS):
        held = fold == number
        known, names = rows[~held], labels[~held]
        counts = {label: (names == label).sum() for label in np.unique(names)}
        weights = np.array([len(names) / (len(counts) * counts[label]) for label in names])
        mean = np.average(known, axis=0, weights=weights)
        scale = np.sqrt(np.average((known - mean) ** 2, axis=0, weights=weights))
        probe = RidgeClassifier(alpha=0.01 * len(names), class_weight="balanced")
        found[held] = probe.fit((known - mean) / scale, names).predict((rows[held] - mean) / scale)
    return found


def centred_gram(rows: np.ndarray) -> np.ndarray:
    """Return the U-centred Gram matrix, whose products are the unbiased HSIC up to a factor."""
    gram, n = rows @ rows.T, len(rows)
    np.fill_diagonal(gram, 0)
    sums = gram.sum(axis=1, keepdims=True)
    gram = gram - (sums + sums.T) / (n - 2) + gram.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(gram, 0)
    return gram


@pytest.mark.parametrize("reference", ["original", "fdr"])
@pytest.mark.parametrize("images", ["forget", "retain"])
def test_cka_is_that_of_whole_gram_matrices_at_each_stage(reference: str, images: str) -> None:
    found = layer_cka(JUDGED, BOTH, reference=reference, images=images)
    other = ORIGINAL if reference == "original" else FDR
    wanted = np.isin(JUDGED.array("test/labels"), FORGET) == (images == "forget")
    expected = []
    for number in range(2):
        first, second = (centred_gram(stage(features, number)[wanted]) for features in (JUDGED, other))
        expected.append((first * second).sum() / np.sqrt((first**2).sum() * (second**2).sum()))

    assert list(found.details["by_stage"].values()) == pytest.approx(expected, abs=1e-9)
    assert found == pytest.approx(min(expected), abs=1e-9)


def test_gaps_by_hand() -> None:
    """In the first stage 1 of 2 forget images lies at its mean, with FDR 2; in the last one both have 1: gap -1/2."""

    def by_hand(first: list[float]) -> FeatureFile:
        seen = [[-1.0], [-1.0], *([value] for value in first)]
        known = [[-1.0], [-1.0], [1.0], [1.0]]
        last = [[-1.0], [-1.0], [1.0], [-1.0]]
        labels = [0, 0, 1, 1]
        return feature_file(
            last, labels, forget=[1], num_classes=2, limited=(known, labels), stages=[(seen, known)]
        )  # fmt: skip

    found = layer_prototype_gap(by_hand([1.0, -1.0]), References(by_hand([1.0, 1.0]), by_hand([1.0, 1.0])))
    assert found == -0.5
    assert found.details == {
        "stage": "stage 0",
        "stages": ["stage 0", "classifier input"],
        "by_stage": {
            "stage 0": {"judged": 0.5, "original": 1.0, "fdr": 1.0},
            "classifier input": {"judged": 0.5, "original": 0.5, "fdr": 0.5},
        },
    }


def test_a_probe_by_hand() -> None:
    """A stage that separates one forget class from the rest is always found, one that is constant never: half of it."""

    def by_hand(column: list[float]) -> FeatureFile:
        labels = [0] * 5 + [1] * 5
        rows = [[value] for value in column]
        return feature_file(rows, labels, forget=[1], num_classes=2)

    apart, alike = by_hand([-1.0] * 5 + [1.0] * 5), by_hand([0.0] * 10)
    assert layer_probe_recovery(apart, References(apart, alike)) == 0.5


def test_the_references_themselves_lie_at_0_and_at_1() -> None:
    assert layer_prototype_gap(FDR, BOTH) == layer_probe_recovery(FDR, BOTH) == 0.0
    assert layer_cka(ORIGINAL, BOTH) == pytest.approx(1.0)


def test_networks_of_other_stages_do_not_compare() -> None:
    with pytest.raises(
        MetricError, match="the stages of the judged model are stage 0, stage 1, classifier input, those"
    ):
        layer_cka(file((1.0, 1.0), 0, stages=2), BOTH)
