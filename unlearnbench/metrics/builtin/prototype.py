"""Accuracy of the nearest class prototype in feature space, on forget classes (FPAe) and on retain classes."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile, PrototypeSource
from unlearnbench.metrics.measurement import Measurement, References

CHUNK = 4096

Distance = Literal["euclidean", "cosine"]


def prototype_hits(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    prototypes: NDArray[np.float64],
    distance: Distance = "euclidean",
) -> NDArray[np.bool_]:
    """Return whether the nearest prototype of each row is that of its label, as `nearest_prototypes` finds it.

    Returns:
        (N,) bool.

    Raises:
        MetricError: If N is 0, shapes do not fit, or a feature is not finite.
    """
    hits: NDArray[np.bool_] = nearest_prototypes(features, labels, prototypes, distance) == labels
    return hits


def nearest_prototypes(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    prototypes: NDArray[np.float64],
    distance: Distance = "euclidean",
) -> NDArray[np.int64]:
    """Return the class of the nearest prototype of each row.

    Args:
        features: (N, D) features.
        labels: (N,) class indices in [0, K), one for each row.
        prototypes: (K, D) mean features; among equally near ones the lowest class index counts.
        distance: `euclidean`, or `cosine` (1 - cosine similarity; a zero vector is at distance 1 from all).

    Returns:
        (N,) class indices.

    Raises:
        MetricError: If N is 0, shapes do not fit, or a feature is not finite.
    """
    if len(labels) == 0 or features.shape != (len(labels), prototypes.shape[1]):
        raise MetricError(
            f"prototype accuracy: features {features.shape}, labels {labels.shape} and prototypes "
            f"{prototypes.shape} do not fit (N, D), (N,) and (K, D) with N > 0"
        )
    if not np.isfinite(features).all() or not np.isfinite(prototypes).all():
        raise MetricError("prototype accuracy: features or prototypes are not finite")
    if distance == "cosine":
        prototypes = prototypes / np.maximum(np.linalg.norm(prototypes, axis=1, keepdims=True), 1e-12)
    half_squares = (prototypes**2).sum(axis=1) / 2
    nearest = np.empty(len(labels), dtype=np.int64)
    for start in range(0, len(labels), CHUNK):
        rows = features[start : start + CHUNK].astype(np.float64)
        similarity = rows @ prototypes.T
        if distance == "euclidean":
            # |f - p|^2 = |f|^2 - 2 (f.p - |p|^2 / 2), so that the nearest prototype has the largest bracket.
            similarity -= half_squares
        nearest[start : start + CHUNK] = similarity.argmax(axis=1)
    return nearest


def prototype_accuracy(
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    prototypes: NDArray[np.float64],
    distance: Distance = "euclidean",
) -> float:
    """Return the share of rows whose nearest prototype is that of their label, as `prototype_hits` finds them.

    Returns:
        A fraction in [0, 1].

    Raises:
        MetricError: If N is 0, shapes do not fit, or a feature is not finite.
    """
    return float(prototype_hits(features, labels, prototypes, distance).mean())


def forget_prototype_accuracy(
    features: FeatureFile,
    *,
    prototypes: Literal["full", "limited"] = "full",
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Measurement:
    """FPAe: share of the forget classes' test images whose nearest class prototype is their own.

        FPAe = (1/N) sum_i [argmin_k d(f_i, p_k) = label_i], over the N forget test images; f (N, D), p (K, D)

    The prototype p_k of a class is its mean feature, and the prototypes of all K classes compete.

    Args:
        features: The judged model's features.
        prototypes: Means over the `full` training set or the `limited` data.
        distance: Distance between features: `euclidean` or `cosine`.

    Returns:
        A fraction in [0, 1]. The yardstick is FDR's value, not 0: a value below it means damage.

    Raises:
        MetricError: If there is no such image, or a feature is not finite.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), forgetting prototype accuracy. Known weakness: it sees only
    class means, so that it may miss knowledge that a probe can bring back.
    """
    return class_prototype_accuracy(features, features.forget_classes, prototypes, distance)


def class_prototype_accuracy(
    features: FeatureFile, classes: NDArray[np.int64], source: PrototypeSource, distance: Distance
) -> Measurement:
    """Return the prototype accuracy on the test images of `classes`; all K prototypes compete."""
    labels = features.labels("test", classes)
    rows = features.rows("test/features", classes)
    hits = prototype_hits(rows, labels, features.prototypes(source), distance)
    return Measurement(float(hits.mean()), hits=hits)


def retain_prototype_accuracy(
    features: FeatureFile,
    *,
    prototypes: Literal["full", "limited"] = "full",
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Measurement:
    """FPAe's counterpart on the retain classes: share of their test images whose nearest prototype is their own.

        (1/N) sum_i [argmin_k d(f_i, p_k) = label_i], over the N retain test images; f (N, D), p (K, D)

    The prototype p_k of a class is its mean feature, and the prototypes of all K classes compete.

    Args:
        features: The judged model's features.
        prototypes: Means over the `full` training set or the `limited` data.
        distance: Distance between features: `euclidean` or `cosine`.

    Returns:
        A fraction in [0, 1], higher is better; Original's value is the yardstick.

    Raises:
        MetricError: If there is no such image, or a feature is not finite.

    Source: own, after ERwP's forgetting prototype accuracy: an unlearner may keep CAne with the classifier alone
    while the features of the retain classes fall apart. Known weakness: it sees only class means.
    """
    return class_prototype_accuracy(features, features.retain_classes, prototypes, distance)


def relative_position(value: float, fdr: float, original: float) -> float:
    """Return (value - fdr) / (original - fdr).

    Raises:
        MetricError: If the two references are equal, so that there is no scale.
    """
    if original == fdr:
        raise MetricError(f"Original and FDR have the same value, {original:g}: there is no scale between them")
    return (value - fdr) / (original - fdr)


def normalised_gap(
    features: FeatureFile,
    references: References,
    *,
    prototypes: Literal["full", "limited"] = "full",
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Measurement:
    """Normalised gap: (FPAe - FDR's) / (Original's - FDR's).

    Args:
        features: The judged model's features.
        references: Feature files of Original and FDR of the same seed.
        prototypes: Means over the `full` training set or the `limited` data.
        distance: Distance between features: `euclidean` or `cosine`.

    Returns:
        A number without bounds: 0 is as retrained, 1 as the original, below 0 damaged.

    Raises:
        MetricError: If Original's FPAe equals FDR's, there is no image, or a feature is not finite.

    Source: own, from ERwP's reading of FPAe (FDR's value is the yardstick). Known weakness: as a ratio it is
    unstable; where Original and FDR are close, a single test image moves it far.
    """
    judged, original, fdr = (
        float(class_prototype_accuracy(file, file.forget_classes, prototypes, distance))
        for file in (features, references.original, references.fdr)
    )
    details = {"judged": judged, "original": original, "fdr": fdr}
    return Measurement(relative_position(judged, fdr, original), details)
