"""Outputs of different classifiers as probabilities of the same classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.measurement import require_finite


def class_probabilities(
    logits: NDArray[np.float32], output_classes: NDArray[np.int64], classes: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the softmax of a classifier's outputs, by class.

    Args:
        logits: (N, O).
        output_classes: (O,) the class of each output.
        classes: (C,) the classes wanted; one without an output has probability 0.

    Returns:
        (N, C) float64; rows sum to 1 if `classes` holds all of `output_classes`.

    Raises:
        MetricError: If N is 0 or a logit is not finite.
    """
    if len(logits) == 0:
        raise MetricError("there is no test image of these classes")
    require_finite(logits=logits)
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    odds = np.exp(shifted)
    odds /= odds.sum(axis=1, keepdims=True)
    found = np.zeros((len(logits), len(classes)))
    column = {int(label): number for number, label in enumerate(classes)}
    for output, label in enumerate(output_classes.tolist()):
        if label in column:
            found[:, column[label]] = odds[:, output]
    return found


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) entropies in nats of (N, C) probabilities; 0 log 0 counts as 0."""
    positive = np.where(probabilities > 0, probabilities, 1.0)
    found: NDArray[np.float64] = -(probabilities * np.log(positive)).sum(axis=1)
    return found
