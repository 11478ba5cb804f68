"""Scores that compare a model with Original and FDR as a whole."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import hmean, ttest_1samp
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestCentroid
from support.feature_files import blobs, feature_file, one_hot

from unlearnbench.metrics.builtin.linear_cka import debiased_linear_cka
from unlearnbench.metrics.builtin.membership import membership_inference
from unlearnbench.metrics.builtin.scores import (
    adaptive_unlearning_score,
    average_gap,
    relative_verdict,
    representation_unlearning_score,
    tug_of_war,
)
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import References

FORGET = [3, 4]


def file(noise: float, seed: int) -> FeatureFile:
    """Return a file of 5 classes with 30 test and 30 limited images each, with noise in features and logits."""
    rows, labels = blobs(seed, 5, 30, 6, spread=noise)
    known, known_labels = blobs(seed + 1, 5, 30, 6, spread=noise)
    stream = np.random.default_rng(seed)
    logits = [one_hot(labels, 5) + noise / 3 * stream.normal(size=(150, 5)) for _ in range(2)]
    return feature_file(
        rows, labels, forget=FORGET, num_classes=5, logits=logits[0], limited=(known, known_labels),
        limited_logits=logits[1],
    )  # fmt: skip


JUDGED, ORIGINAL, FDR = file(2.0, 0), file(0.7, 10), file(3.0, 20)
BOTH = References(ORIGINAL, FDR)


def decisions(features: FeatureFile) -> np.ndarray:
    known = features.array("limited/features").astype(np.float64), features.array("limited/labels")
    rows = features.array("test/features")[np.isin(features.array("test/labels"), FORGET)]
    return NearestCentroid().fit(*known).predict(rows.astype(np.float64))


def correct(features: FeatureFile, part: str, *, forget: bool) -> float:
    labels = features.array(f"{part}/labels")
    wanted = np.isin(labels, FORGET) == forget
    return float(accuracy_score(labels[wanted], features.array(f"{part}/logits").argmax(axis=1)[wanted]))


def test_the_relative_verdict_is_a_mean_of_agreements_with_scipy_s_interval() -> None:
    judged, original, fdr = (decisions(features) for features in (JUDGED, ORIGINAL, FDR))
    closer = (judged == fdr).astype(float) - (judged == original)
    found = relative_verdict(JUDGED, BOTH)

    assert found == pytest.approx(closer.mean(), abs=1e-9)
    interval = ttest_1samp(closer, 0).confidence_interval(0.95)
    assert found.details["interval"] == pytest.approx([interval.low, interval.high], abs=1e-9)
    assert found.details["with_fdr"] == pytest.approx((judged == fdr).mean(), abs=1e-9)


@pytest.mark.parametrize(
    ("judged", "verdict"), [(ORIGINAL, "closer to Original"), (FDR, "closer to FDR"), (JUDGED, "undecided")]
)
def test_the_verdict_is_said_in_words(judged: FeatureFile, verdict: str) -> None:
    references = References(JUDGED, JUDGED) if judged is JUDGED else BOTH
    assert relative_verdict(judged, references).details["verdict"] == verdict


def test_the_relative_verdict_by_hand() -> None:
    """The judged model decides 1, 1, 0, 0; FDR 0, 1, 0, 0 and Original 1, 1, 1, 1: +1/4."""

    def found(classes: list[int]) -> FeatureFile:
        rows = [[2.0 * label - 1] for label in classes]
        return feature_file(rows, [1] * 4, forget=[1], num_classes=2, limited=([[-1.0], [1.0]], [0, 1]))

    value = relative_verdict(found([1, 1, 0, 0]), References(found([1] * 4), found([0, 1, 0, 0])))
    assert value == 0.25
    assert (value.details["with_fdr"], value.details["with_original"]) == (0.75, 0.5)


def test_rus_is_scipy_s_harmonic_mean() -> None:
    forget = np.isin(JUDGED.array("test/labels"), FORGET)
    pair = [features.array("test/features") for features in (JUDGED, ORIGINAL)]
    forgotten = 1 - debiased_linear_cka(*(rows[forget] for rows in pair))
    kept = debiased_linear_cka(*(rows[~forget] for rows in pair))
    found = representation_unlearning_score(JUDGED, BOTH)

    assert found == pytest.approx(hmean([forgotten, kept]), abs=1e-9)
    assert found.details == pytest.approx({"forgetting": forgotten, "keeping": kept})
    assert representation_unlearning_score(ORIGINAL, BOTH) == pytest.approx(0.0, abs=1e-9)


def test_aus_by_hand() -> None:
    """CAne falls from 1 to 1/2 and FAe is 1/4: (1 - 1/2) / (1 + 1/4)."""
    labels = [0] * 4 + [1] * 4

    def found(predicted: list[int]) -> FeatureFile:
        return feature_file(np.ones((8, 2)), labels, forget=[1], num_classes=2, logits=one_hot(predicted, 2))

    original = found(labels)
    value = adaptive_unlearning_score(found([0, 0, 1, 1, 1, 0, 0, 0]), References(original, original))
    assert value == pytest.approx(0.4, abs=1e-12)
    assert adaptive_unlearning_score(original, References(original, original)) == 0.5


def test_aus_is_the_formula() -> None:
    expected = (1 - (correct(ORIGINAL, "test", forget=False) - correct(JUDGED, "test", forget=False))) / (
        1 + correct(JUDGED, "test", forget=True)
    )
    assert adaptive_unlearning_score(JUDGED, BOTH) == pytest.approx(expected, abs=1e-9)


def gaps() -> list[float]:
    parts = [("limited", True), ("limited", False), ("test", False)]
    return [abs(correct(JUDGED, part, forget=kind) - correct(FDR, part, forget=kind)) for part, kind in parts]


def test_the_average_gap_and_tow_are_made_of_differences_to_fdr() -> None:
    attack = abs(membership_inference(JUDGED, BOTH))

    assert average_gap(JUDGED, BOTH) == pytest.approx(np.mean([*gaps(), attack]), abs=1e-9)
    assert tug_of_war(JUDGED, BOTH) == pytest.approx(np.prod(1 - np.array(gaps())), abs=1e-9)


def test_fdr_has_no_gap_to_itself() -> None:
    assert average_gap(FDR, BOTH) == 0.0
    assert tug_of_war(FDR, BOTH) == 1.0


def test_tow_by_hand() -> None:
    """Of the limited images half of the forget ones and all others are as FDR's, and 3 of 4 retain test images are."""
    limited = [0] * 4 + [1] * 4

    def found(trained: list[int], tested: list[int]) -> FeatureFile:
        return feature_file(
            np.ones((8, 2)), limited, forget=[1], num_classes=2, logits=one_hot(tested, 2),
            limited=(np.ones((8, 2)), limited), limited_logits=one_hot(trained, 2),
        )  # fmt: skip

    fdr = found([0] * 8, [0] * 8)
    judged = found([0, 0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0, 0])
    assert tug_of_war(judged, References(fdr, fdr)) == pytest.approx(0.5 * 1 * 0.75, abs=1e-12)
