"""Predictions: which classes the classifier sends forget images to, and how sure it is."""

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
    """Return (R, C) counts of the images of each class in `rows` that were classified as each class in `columns`."""
    matrix = np.zeros((len(rows), len(columns)), dtype=np.int64)
    np.add.at(matrix, (np.searchsorted(rows, labels), np.searchsorted(columns, predicted)), 1)
    return matrix


def prediction_matrix(features: FeatureFile, *, top: Annotated[int, Field(gt=0)] = 10) -> Measurement:
    """Prediction matrix: where forget images go, and how widely they scatter.

    For each forget class c, p_c is the distribution of the classes that its test images are classified as. The value
    is the mean over c of the entropy H(p_c) / log O, where O is the number of outputs. The details hold each p_c.

    Args:
        features: The judged model's features.
        top: Number of destinations of each class in the details, the most frequent first.

    Returns:
        A number in [0, 1]: 0 if all images of each class go to one class, 1 if they are spread evenly over all. It has
        no direction of its own: FDR's value is the yardstick, and a class that goes to a single other was relabelled.

    Raises:
        MetricError: If a forget class has no test image, the model has a single output, or a logit is not finite.

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
        A number in [0, 1]: 0 means sure, 1 means ignorant. It has no direction of its own; FDR's value is the
        yardstick.

    Raises:
        MetricError: If there is no such image, the model has a single output, or a logit is not finite.

    Source: predictive entropy, as in "zero retrain forgetting" measures (Chundawat et al., 2023). Known weakness: it
    changes with the scale of the logits, which no accuracy sees.
    """
    outputs = features.output_classes
    if len(outputs) < 2:
        raise MetricError("the model has a single output: it is always sure")
    logits = features.rows("test/logits", features.forget_classes)
    return float(entropy(class_probabilities(logits, outputs, outputs)).mean() / np.log(len(outputs)))


def _retain_logits(features: FeatureFile) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the logits of forget test images at the outputs of retain classes, and these outputs' classes.

    Raises:
        MetricError: If there are fewer than two such outputs, or a logit is not finite.
    """
    kept = np.isin(features.output_classes, features.retain_classes)
    if kept.sum() < 2:
        raise MetricError(f"the model has {int(kept.sum())} outputs for retain classes; 2 are needed")
    logits = features.rows("test/logits", features.forget_classes)[:, kept]
    require_finite(logits=logits)
    return logits, features.output_classes[kept]


def retain_output_scatter(features: FeatureFile) -> Measurement:
    """Scatter over retain classes: how widely forget images go to retain classes if only these compete.

    For each forget class c, p_c is the distribution of the retain classes whose logits are the largest on its test
    images. The value is the mean over c of H(p_c) / log R, where R is the number of retain classes.

    Args:
        features: The judged model's features.

    Returns:
        A number in [0, 1]: 0 if all images of each class go to one class, 1 if they are spread evenly over all. FDR's
        value is the yardstick. Every model has these outputs, so that one which lost the forget classes' outputs (WD)
        and one which gained an output (FOLMRCSC) compare with all others, which `prediction_matrix` does not allow.

    Raises:
        MetricError: If a forget class has no test image, there are fewer than two retain outputs, or a logit is not
            finite.

    Source: own, after the confusion matrix on forget images. Known weakness: the entropy of few test images is biased
    downwards.
    """
    labels = features.labels("test", features.forget_classes)
    logits, outputs = _retain_logits(features)
    counts = prediction_counts(outputs[logits.argmax(axis=1)], labels, features.forget_classes, outputs)
    shares = counts / counts.sum(axis=1, keepdims=True)
    return Measurement(float(entropy(shares).mean() / np.log(len(features.retain_classes))))


def retain_output_entropy(features: FeatureFile) -> float:
    """Entropy over retain classes: mean over forget test images of H(softmax of the retain logits) / log R.

    Args:
        features: The judged model's features.

    Returns:
        A number in [0, 1]: 0 means sure of a retain class, 1 means ignorant. FDR's value is the yardstick. Models with
        fewer or with more outputs compare, which `prediction_entropy` does not allow.

    Raises:
        MetricError: If a forget class has no test image, there are fewer than two retain outputs, or a logit is not
            finite.

    Source: predictive entropy (Chundawat et al., 2023) among the outputs that every model has. Known weakness: it
    changes with the scale of the logits, which no accuracy sees.
    """
    features.labels("test", features.forget_classes)
    logits, outputs = _retain_logits(features)
    found = entropy(class_probabilities(logits, outputs, outputs))
    return float(found.mean() / np.log(len(features.retain_classes)))


def jensen_shannon(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the Jensen-Shannon divergence of each row, in nats.

    JS(p, q) = (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2 and 0 log 0 = 0.

    Args:
        first: (N, C) probabilities p.
        second: (N, C) probabilities q.

    Returns:
        (N,) divergences, each in [0, log 2].

    Raises:
        MetricError: If the shapes differ or there is no row.
    """
    if first.shape != second.shape or len(first) == 0:
        raise MetricError(f"Jensen-Shannon divergence: {first.shape} and {second.shape} are not the same images")
    middle = (first + second) / 2
    divergence = (rel_entr(first, middle) + rel_entr(second, middle)).sum(axis=1) / 2
    # Rounding can leave a value slightly below 0 where p and q are equal.
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
        references: Feature files of the references, FDR of the same seed among them.
        images: Test images of the `forget` or of the `retain` classes.

    Returns:
        A number in [0, log 2 = 0.693]: 0 is as retrained, lower is better. Two retrained models differ from 0 too.

    Raises:
        MetricError: If there is no such image, or a logit is not finite.

    Source: Lin, 1991; for unlearning Chundawat et al., AAAI 2023. A form copied between public repositories calls
    `kl_div` with the arguments swapped and averages over classes too, which gives 0.083 where 0.253 is right. Known
    weakness: it changes with the scale of the logits.
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
        logits: (N, O) outputs.
        output_classes: (O,) the class of each output.
        classes: (C,) classes to return; one without an output has probability 0.

    Returns:
        (N, C) float64; rows sum to 1 if `classes` includes all of `output_classes`.

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
    """Return the (N,) entropies in nats of (N, C) probabilities, where 0 log 0 counts as 0."""
    found: NDArray[np.float64] = entr(probabilities).sum(axis=1)
    return found
