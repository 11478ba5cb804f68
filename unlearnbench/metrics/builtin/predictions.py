"""Where the classifier sends forget images."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import entr, rel_entr, softmax

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, References, require_finite


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


def prediction_entropy(features: FeatureFile) -> float:
    """Prediction entropy: mean over the forget classes' test images of H(softmax(logits)) / log O, O outputs.

    Args:
        features: The judged model's features.

    Returns:
        In [0, 1]: 0 is sure, 1 knows nothing. No direction of its own; FDR's value is the yardstick.

    Raises:
        MetricError: If there is no such image, the model has a single output, or a logit is not finite.

    Source: predictive entropy, as in "zero retrain forgetting" measures (Chundawat et al., 2023). Known weakness:
    changes with the scale of the logits, which no accuracy sees.
    """
    outputs = features.output_classes
    if len(outputs) < 2:
        raise MetricError("the model has a single output: it is always sure")
    logits = features.rows("test/logits", features.forget_classes)
    return float(entropy(class_probabilities(logits, outputs, outputs)).mean() / np.log(len(outputs)))


def jensen_shannon(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each row, in nats.

    JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2 and 0 log 0 = 0.

    Args:
        first: (N, C) probabilities p.
        second: (N, C) probabilities q.

    Returns:
        (N,), each in [0, log 2].

    Raises:
        MetricError: If the shapes differ or there is no row.
    """
    if first.shape != second.shape or len(first) == 0:
        raise MetricError(f"Jensen-Shannon divergence: {first.shape} and {second.shape} are not the same images")
    middle = (first + second) / 2
    divergence = (rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=1) / 2
    # Rounding can leave a trace below 0 where p and q are equal.
    found: NDArray[np.float64] = np.maximum(divergence, 0.0)
    return found


def js_divergence(
    features: FeatureFile, references: References, *, images: Literal["forget", "retain"] = "forget"
) -> float:
    """Jensen-Shannon divergence of the outputs to FDR's: mean over test images, in nats.

    JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2; p and q are the softmax outputs of the judged model
    and of FDR over the classes of both. An output that a model does not have counts as probability 0.

    Args:
        features: The judged model's features.
        references: FDR of the same seed.
        images: Test images of the `forget` or the `retain` classes.

    Returns:
        In [0, log 2 = 0.693]: 0 is as retrained, lower is better. Two retrained models are not at 0 either.

    Raises:
        MetricError: If there is no such image, or a logit is not finite.

    Source: Lin, 1991; for unlearning Chundawat et al., AAAI 2023. The form copied between public repositories calls
    `kl_div` with the arguments swapped and averages over classes too: 0.083 where 0.253 is right. Known weakness:
    changes with the scale of the logits.
    """
    classes = features.classes(images)
    outputs = np.union1d(features.output_classes, references.fdr.output_classes)
    first, second = (
        class_probabilities(file.rows("test/logits", classes), file.output_classes, outputs)
        for file in (features, references.fdr)
    )
    return float(jensen_shannon(first, second).mean())


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
    odds = softmax(logits.astype(np.float64), axis=1)
    found = np.zeros((len(logits), len(classes)))
    column = {int(label): number for number, label in enumerate(classes)}
    for output, label in enumerate(output_classes.tolist()):
        if label in column:
            found[:, column[label]] = odds[:, output]
    return found


def entropy(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (N,) entropies in nats of (N, C) probabilities; 0 log 0 counts as 0."""
    found: NDArray[np.float64] = entr(probabilities).sum(axis=1)
    return found
