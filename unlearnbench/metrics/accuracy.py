"""Accuracy of the classifier on forget and on retain classes: FAe and CAne."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement


def accuracy_hits(
    logits: NDArray[np.float32], labels: NDArray[np.int64], output_classes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return for each row whether its largest logit is that of its label.

    Args:
        logits: (N, O) outputs of the classifier; of equal largest ones the first counts.
        labels: (N,) class indices.
        output_classes: (O,) the class of each output, ascending.

    Returns:
        (N,).

    Raises:
        MetricError: If N is 0 or differs between the arrays, or if a logit is not a number.
    """
    if len(labels) == 0 or logits.shape != (len(labels), len(output_classes)):
        raise MetricError(
            f"accuracy: logits {logits.shape}, labels {labels.shape} and outputs {output_classes.shape} "
            "do not fit (N, O), (N,) and (O,) with N > 0"
        )
    if np.isnan(logits).any():
        raise MetricError(f"accuracy: {int(np.isnan(logits).any(axis=1).sum())} images have logits that are no number")
    hits: NDArray[np.bool_] = output_classes[logits.argmax(axis=1)] == labels
    return hits


def accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64], output_classes: NDArray[np.int64]) -> float:
    """Return the share of rows whose largest logit is that of their label; see `accuracy_hits`.

    Returns:
        A fraction in [0, 1].

    Raises:
        MetricError: If N is 0 or differs between the arrays, or if a logit is not a number.
    """
    return float(accuracy_hits(logits, labels, output_classes).mean())


def forget_accuracy(features: FeatureFile) -> Measurement:
    """FAe: share of the forget classes' test images that are classified as their own class.

        FAe = (1/N) sum_i [class of argmax_o logits_io = label_i], over the N forget test images; logits (N, O)

    All outputs compete: with FOLMRCSC the new one too, with WD only those that are left.

    Returns:
        A fraction in [0, 1], lower is better.

    Raises:
        MetricError: If there is no such image, or a logit is not a number.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), forgetting accuracy. Known weakness: sees the
    classifier alone; a model whose head lost a row scores 0 with all its knowledge in place.
    """
    return _class_accuracy(features, features.forget_classes)


def retain_accuracy(features: FeatureFile) -> Measurement:
    """CAne: share of the retain classes' test images that are classified as their own class.

        CAne = (1/N) sum_i [class of argmax_o logits_io = label_i], over the N retain test images; logits (N, O)

    Returns:
        A fraction in [0, 1], higher is better.

    Raises:
        MetricError: If there is no such image, or a logit is not a number.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), constraint accuracy. Known weakness: removing outputs
    raises it a little, since fewer classes compete.
    """
    return _class_accuracy(features, features.retain_classes)


def _class_accuracy(features: FeatureFile, classes: NDArray[np.int64]) -> Measurement:
    labels = features.labels("test", classes)
    hits = accuracy_hits(features.rows("test/logits", classes), labels, features.output_classes)
    return Measurement(float(hits.mean()), hits=hits)
