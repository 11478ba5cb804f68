"""Accuracy of the nearest class prototype on the retain classes."""

from __future__ import annotations

from typing import Literal

from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement
from unlearnbench.metrics.prototype import class_prototype_accuracy


def retain_prototype_accuracy(
    features: FeatureFile,
    *,
    prototypes: Literal["full", "limited"] = "full",
    distance: Literal["euclidean", "cosine"] = "euclidean",
) -> Measurement:
    """FPAe's counterpart on the retain classes: share of their test images whose nearest prototype is their own.

        (1/N) sum_i [argmin_k d(f_i, p_k) = label_i], over the N retain test images; f (N, D), p (K, D)

    The prototype p_k of a class is its mean feature; the prototypes of all K classes compete.

    Args:
        features: The judged model's features.
        prototypes: Means over the `full` training set or the `limited` data.
        distance: `euclidean` or `cosine`.

    Returns:
        A fraction in [0, 1], higher is better; Original's value is the yardstick.

    Raises:
        MetricError: If there is no such image, or a feature is not finite.

    Source: own, after ERwP's forgetting prototype accuracy: an unlearner may keep CAne with the classifier alone
    while the features of the retain classes fall apart. Known weakness: sees class means only.
    """
    return class_prototype_accuracy(features, features.retain_classes, prototypes, distance)
