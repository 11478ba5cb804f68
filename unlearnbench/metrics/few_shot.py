"""Few-shot prototype relearning: the classifier's forget rows are replaced by prototypes."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, require_finite
from unlearnbench.metrics.accuracy import accuracy
from unlearnbench.metrics.shots import draw_shots


def prototype_rows(
    features: NDArray[np.float64], labels: NDArray[np.int64], classes: NDArray[np.int64], norm: float
) -> NDArray[np.float64]:
    """Return (F, D) rows of a classifier: each class's mean feature, scaled to a norm; 0 for a mean of 0."""
    means = np.stack([features[labels == label].mean(axis=0) for label in classes])
    lengths = np.linalg.norm(means, axis=1, keepdims=True)
    rows: NDArray[np.float64] = norm * means / np.maximum(lengths, 1e-12)
    return rows


def few_shot_relearning(
    features: FeatureFile,
    *,
    shots: Annotated[int, Field(gt=0)] | None = 5,
    draws: Annotated[int, Field(gt=0)] = 5,
) -> Measurement:
    """Few-shot prototype relearning: FAe after the classifier's forget rows became k-shot prototypes.

        w_k = norm * m_k / |m_k|, m_k the mean feature (D,) of the shots, norm the mean of |w_j| over retain rows

    Each forget class's row is the mean feature of `shots` of its limited images, scaled to the mean norm of the retain
    rows, its bias the mean of theirs. All other outputs stay, and all compete. Nothing is trained.

    Args:
        features: The judged model's features, which hold its classifier too.
        shots: Limited images of each forget class; all of them if None.
        draws: How many times the images are drawn; the mean counts.

    Returns:
        A fraction in [0, 1]; the lower, the harder the class is to bring back. The yardstick is FDR's value. The
        details hold CAne after the same replacement: the price of the attack.

    Raises:
        MetricError: If a class has too few images, the model no retain output, or a feature is not finite.

    Source: weight imprinting (Qi, Brown, Lowe; CVPR 2018) as an attack on unlearned models. Known weakness: features
    behind a ReLU are all positive, so that a prototype row is near every image and draws retain images too.
    """
    weight, bias = (features.array(f"classifier/{name}").astype(np.float64) for name in ("weight", "bias"))
    retain_rows = np.isin(features.output_classes, features.retain_classes)
    if not retain_rows.any():
        raise MetricError("the model has no output for a retain class")
    require_finite(classifier=weight, limited_features=features.array("limited/features"))
    norm, offset = float(np.linalg.norm(weight[retain_rows], axis=1).mean()), float(bias[retain_rows].mean())
    known = features.rows("limited/features", features.forget_classes).astype(np.float64)
    labels = features.labels("limited", features.forget_classes)
    accuracies: dict[str, list[float]] = {"forget": [], "retain": []}
    for chosen in draw_shots(labels, features.forget_classes, shots, draws, features.seed):
        rows = prototype_rows(known[chosen], labels[chosen], features.forget_classes, norm)
        for images in ("forget", "retain"):
            accuracies[images].append(_accuracy_with(features, features.classes(images), rows, offset))
    means = {images: float(np.mean(values)) for images, values in accuracies.items()}
    return Measurement(means["forget"], {"retain_accuracy": means["retain"], "by_draw": accuracies["forget"]})


def _accuracy_with(
    features: FeatureFile, classes: NDArray[np.int64], rows: NDArray[np.float64], offset: float
) -> float:
    """Return the accuracy on the test images of `classes` with new rows for the forget classes."""
    kept = ~np.isin(features.output_classes, features.forget_classes)
    relearned = features.rows("test/features", classes) @ rows.T + offset
    logits = np.concatenate([features.rows("test/logits", classes)[:, kept], relearned], axis=1)
    outputs = np.concatenate([features.output_classes[kept], features.forget_classes])
    order = np.argsort(outputs, kind="stable")
    return accuracy(logits[:, order], features.labels("test", classes), outputs[order])
