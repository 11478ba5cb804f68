"""Scores that compare a model with Original and FDR as a whole, among them those that other papers print."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from unlearnbench.errors import MetricError
from unlearnbench.metrics.builtin.accuracy import accuracy, forget_accuracy, retain_accuracy
from unlearnbench.metrics.builtin.linear_cka import debiased_linear_cka
from unlearnbench.metrics.builtin.membership import membership_inference
from unlearnbench.metrics.builtin.prototype import nearest_prototypes
from unlearnbench.metrics.features import FeatureFile, Part
from unlearnbench.metrics.measurement import Measurement, References

CONFIDENCE = 0.95


def relative_verdict(features: FeatureFile, references: References) -> Measurement:
    """Relative verdict: on how many more forget images the features decide as FDR's do than as Original's do.

        value = (1/N) sum_i ([u_i = r_i] - [u_i = o_i]), over the N forget test images

    u, r and o are the classes of the nearest prototypes (full training set, Euclidean) of the judged model, of FDR and
    of Original.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A difference of fractions, in [-1, 1]: above 0 the model is closer to FDR, below 0 to Original. The details hold
        both shares, the 95 % t interval over the images, and the verdict in words: undecided if the interval holds 0.

    Raises:
        MetricError: If there are fewer than 2 such images, or a feature is not finite.

    Source: own, in the spirit of relative tests with three samples (Bounliphone et al., ICLR 2016), on decisions
    because the features of two trainings have no common axes. Known weakness: two retrained models agree on a part of
    the images only, so that a method that starts from Original needs to move far.
    """
    judged, original, fdr = (_decisions(file) for file in (features, references.original, references.fdr))
    if len(judged) < 2:
        raise MetricError(f"{len(judged)} forget test image has no interval; 2 are needed")
    closer = (judged == fdr).astype(np.float64) - (judged == original)
    value = float(closer.mean())
    half = float(stdtrit(len(closer) - 1, (1 + CONFIDENCE) / 2)) * float(closer.std(ddof=1)) / math.sqrt(len(closer))
    verdict = "closer to FDR" if value - half > 0 else "closer to Original" if value + half < 0 else "undecided"
    details = {
        "with_fdr": float((judged == fdr).mean()),
        "with_original": float((judged == original).mean()),
        "interval": [value - half, value + half],
        "verdict": verdict,
    }
    return Measurement(value, details)


def _decisions(features: FeatureFile) -> NDArray[np.int64]:
    """Return the class of the nearest prototype of each forget test image."""
    rows = features.rows("test/features", features.forget_classes)
    labels = features.labels("test", features.forget_classes)
    return nearest_prototypes(rows, labels, features.prototypes("full"))


def representation_unlearning_score(features: FeatureFile, references: References) -> Measurement:
    """Representation unlearning score (RUS): harmonic mean of forgetting and keeping in the features.

        RUS = 2 g k / (g + k), g = 1 - CKA to Original on forget images, k = CKA to Original on retain images

    Both are linear CKA of the last stage's features, debiased, and held within [0, 1]. RUS is 0 if both are 0.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A fraction in [0, 1], higher is better; FDR's value is the yardstick, since two trainings differ too.

    Raises:
        MetricError: If there are fewer than 4 images of a kind, a feature is not finite, or all features are alike.

    Source: the harmonic mean of forgetting and keeping that representation-level evaluations of unlearning print, with
    debiased linear CKA. Known weakness: damage counts as forgetting.
    """
    alike = {}
    for images, classes in (("forget", features.forget_classes), ("retain", features.retain_classes)):
        pair = (file.rows("test/features", classes) for file in (features, references.original))
        alike[images] = min(1.0, max(0.0, debiased_linear_cka(*pair)))
    forgotten, kept = 1 - alike["forget"], alike["retain"]
    total = forgotten + kept
    value = 2 * forgotten * kept / total if total > 0 else 0.0
    return Measurement(value, {"forgetting": forgotten, "keeping": kept})


def adaptive_unlearning_score(features: FeatureFile, references: References) -> Measurement:
    """Adaptive unlearning score (AUS): (1 - (Original's CAne - CAne)) / (1 + FAe).

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A number of at most 2, higher is better; 1 is Original's CAne with no forget image recognised.

    Raises:
        MetricError: If a kind of classes has no test image, or a logit is not a number.

    Source: DUCK (Cotogni et al., 2023), for the removal of classes, where the accuracy to reach is 0. Known weakness:
    it sees only the classifier, so that deleting outputs is rewarded.
    """
    kept, original, forget = retain_accuracy(features), retain_accuracy(references.original), forget_accuracy(features)
    return Measurement((1 - (float(original) - float(kept))) / (1 + float(forget)))


def _gaps(features: FeatureFile, references: References) -> dict[str, float]:
    """Return |accuracy - FDR's| on limited forget images, limited retain images and retain test images."""
    parts: tuple[tuple[str, Part, NDArray[np.int64]], ...] = (
        ("forget_training", "limited", features.forget_classes),
        ("retain_training", "limited", features.retain_classes),
        ("retain_test", "test", features.retain_classes),
    )
    return {
        name: abs(_accuracy(features, part, classes) - _accuracy(references.fdr, part, classes))
        for name, part, classes in parts
    }


def _accuracy(features: FeatureFile, part: Part, classes: NDArray[np.int64]) -> float:
    return accuracy(features.rows(f"{part}/logits", classes), features.labels(part, classes), features.output_classes)


def average_gap(features: FeatureFile, references: References) -> Measurement:
    """Average gap to FDR: mean of the absolute differences in four numbers of the classifier.

        gap = (|UA - UA'| + |RA - RA'| + |TA - TA'| + |MIA - MIA'|) / 4, with ' for FDR

    UA and RA are the accuracies on limited forget and on limited retain images, which stand for the training images;
    TA is CAne; MIA is the accuracy of `membership_inference`'s attack.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A fraction in [0, 1], lower is better; 0 for FDR itself.

    Raises:
        MetricError: If a kind of images is missing, a forget class has fewer than 2, or a logit is not finite.

    Source: the average gap of SalUn (Fan et al., ICLR 2024) and of papers since. Known weakness: it sees only the
    classifier; and with few limited images UA and MIA vary by several points.
    """
    gaps = {**_gaps(features, references), "membership": abs(float(membership_inference(features, references)))}
    return Measurement(sum(gaps.values()) / len(gaps), gaps)


def tug_of_war(features: FeatureFile, references: References) -> Measurement:
    """Tug of war (ToW): (1 - |dU|) (1 - |dR|) (1 - |dT|), differences to FDR's accuracies.

    U and R are the limited forget and the limited retain images, which stand for the training images, and T the retain
    test images.

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.

    Returns:
        A fraction in [0, 1], higher is better; 1 for FDR itself.

    Raises:
        MetricError: If a kind of images is missing, or a logit is not a number.

    Source: Zhao et al., NeurIPS 2024, "What makes unlearning hard and what to do about it". Known weakness: it sees
    only the classifier.
    """
    gaps = _gaps(features, references)
    return Measurement(math.prod(1 - gap for gap in gaps.values()), gaps)
