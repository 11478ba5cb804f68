"""Where FPAe stands between FDR's and Original's."""

from __future__ import annotations

from typing import Literal

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, References
from unlearnbench.metrics.prototype import class_prototype_accuracy


def relative_position(value: float, retrained: float, original: float) -> float:
    """Return (value - retrained) / (original - retrained).

    Raises:
        MetricError: If the two references are equal: there is no scale.
    """
    if original == retrained:
        raise MetricError(f"Original and FDR have the same value, {original:g}: there is no scale between them")
    return (value - retrained) / (original - retrained)


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
        references: Original and FDR of the same seed.
        prototypes: Means over the `full` training set or the `limited` data.
        distance: `euclidean` or `cosine`.

    Returns:
        0 is as retrained, 1 as the original, below 0 damaged; not bounded.

    Raises:
        MetricError: If Original's FPAe equals FDR's, there is no image, or a feature is not finite.

    Source: own, from ERwP's reading of FPAe (FDR's value is the yardstick). Known weakness: a ratio; where
    Original and FDR are close, noise of one test image moves it far.
    """
    judged, original, retrained = (
        float(class_prototype_accuracy(file, file.forget_classes, prototypes, distance))
        for file in (features, references.original, references.retrained)
    )
    details = {"judged": judged, "original": original, "retrained": retrained}
    return Measurement(relative_position(judged, retrained, original), details)
