"""Where the classifier sends forget images."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, require_finite
from unlearnbench.metrics.probabilities import entropy


def prediction_counts(
    predicted: NDArray[np.int64], labels: NDArray[np.int64], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return (R, C): how many images of each class in `rows` were taken for each class in `columns`."""
    matrix = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(matrix, (np.searchsorted(rows, labels), np.searchsorted(columns, predicted)), 1)
    return matrix


def prediction_matrix(features: FeatureFile, *, top: Annotated[int, Field(gt=0)] = 10) -> Measurement:
    """Prediction matrix: where forget images go, and how widely they scatter.

    For each forget class c, p_c is the distribution of the classes that its test images are taken for. The value is
    the mean over c of the entropy H(p_c) / log O, O the number of outputs. The details hold each p_c.

    Args:
        features: The judged model's features.
        top: How many destinations of each class stand in the details, the most frequent first.

    Returns:
        In [0, 1]: 0 if every class goes to one class as a whole, 1 if it is spread evenly over all. No direction of its
        own: FDR's value is the yardstick, and a class that goes to one other as a whole is one that was relabelled.

    Raises:
        MetricError: If a forget class has no test image, the model a single output, or a logit is not finite.

    Source: confusion matrix on forget images. Known weakness: the entropy of few test images is biased downwards.
    """
    labels = features.labels("test", features.forget_classes)
    logits = features.rows("test/logits", features.forget_classes)
    outputs = features.output_classes
    if len(outputs) < 2:
        raise MetricError("the model has a single output: all images go there")
    require_finite(logits=logits)
    counts = prediction_counts(outputs[logits.argmax(axis=1)], labels, features.forget_classes, outputs)
    shares = counts / counts.sum(axis=1, keepdims=True)
    destinations = {
        str(label): {str(outputs[k]): float(row[k]) for k in np.argsort(-row, kind="stable")[:top] if row[k] > 0}
        for label, row in zip(features.forget_classes, shares, strict=True)
    }
    return Measurement(float(entropy(shares).mean() / np.log(len(outputs))), {"destinations": destinations})
