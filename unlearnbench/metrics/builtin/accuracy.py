"""Accuracy of the classifier on forget and on retain classes: FAe, CAne, and CAne among the retain classes' outputs."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, References


def accuracy_hits(
    logits: NDArray[np.float32], labels: NDArray[np.int64], output_classes: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return whether the largest logit of each row is that of its label.

    Args:
        logits: (N, O) outputs of the classifier; among equal largest logits the first counts.
        labels: (N,) class indices.
        output_classes: (O,) the class of each output, ascending.

    Returns:
        (N,) bool.

    Raises:
        MetricError: If N is 0 or differs between the arrays, or a logit is not a number.
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
    """Return the share of rows whose largest logit is that of their label, as `accuracy_hits` finds them.

    Returns:
        A fraction in [0, 1].

    Raises:
        MetricError: If N is 0 or differs between the arrays, or a logit is not a number.
    """
    return float(accuracy_hits(logits, labels, output_classes).mean())


def forget_accuracy(features: FeatureFile) -> Measurement:
    """FAe: share of the forget classes' test images that are classified as their own class.

        FAe = (1/N) sum_i [class of argmax_o logits_io = label_i], over the N forget test images; logits (N, O)

    All outputs compete: the new one of FOLMRCSC too, and only the remaining ones of WD.

    Returns:
        A fraction in [0, 1], lower is better.

    Raises:
        MetricError: If there is no such image, or a logit is not a number.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), forgetting accuracy. Known weakness: it sees only the
    classifier, so that a model whose classifier lost a row scores 0 with all its knowledge in place.
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


def masked_retain_accuracy(features: FeatureFile) -> Measurement:
    """CAne among retain outputs: share of the retain classes' test images right if only retain classes compete.

        (1/N) sum_i [class of argmax_o logits_io = label_i], over the N retain test images and the retain outputs o

    Returns:
        A fraction in [0, 1], higher is better. Original's own value is the yardstick: the difference is what a method
        lost of the retain classes.

    Raises:
        MetricError: If there is no such image, the model has no retain output, or a logit is not a number.

    Source: own. Deleting the forget classes' outputs alone raises CAne (by 3 points on CIFAR-100), so that a method
    could lose as much unseen. Known weakness: images that go to a forget class do not count as lost.
    """
    labels = features.labels("test", features.retain_classes)
    kept = np.isin(features.output_classes, features.retain_classes)
    if not kept.any():
        raise MetricError("the model has no output for a retain class")
    logits = features.rows("test/logits", features.retain_classes)[:, kept]
    hits = accuracy_hits(logits, labels, features.output_classes[kept])
    return Measurement(float(hits.mean()), hits=hits)


def nearest_classes(
    prototypes: NDArray[np.float64], forget: NDArray[np.int64], retain: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the classes of `retain` that are among the `count` nearest to any class of `forget`, ascending.

    Args:
        prototypes: (K, D) mean features.
        forget: (F,) class indices.
        retain: (R,) class indices, ascending; among equally near classes the first count.
        count: Number of nearest classes for each forget class.
    """
    distances = np.linalg.norm(prototypes[forget][:, None] - prototypes[retain][None], axis=2)
    found: NDArray[np.int64] = np.unique(retain[np.argsort(distances, axis=1, kind="stable")[:, :count]])
    return found


def near_class_gap(
    features: FeatureFile,
    references: References,
    *,
    neighbours: Literal["superclass", "prototypes", "auto"] = "auto",
    count: Annotated[int, Field(gt=0)] = 1,
) -> Measurement:
    """Near-class gap: retain accuracy on the forget classes' nearest neighbours, minus that on the others.

        gap = CAne over near retain classes - CAne over all other retain classes

    A retain class is near if it shares a superclass with a forget class (CIFAR-100), or if its prototype is among the
    nearest in Original's feature space (Euclidean, full training set).

    Args:
        features: The judged model's features.
        references: Feature files of the references; Original gives the neighbours, the same for every unlearner.
        neighbours: `superclass`, `prototypes`, or `auto`: superclasses if the data set has them and they give
            both near and other classes, and otherwise prototypes.
        count: Number of nearest prototypes for each forget class.

    Returns:
        A difference of fractions, in [-1, 1]. Original's value is the yardstick: a value below it means that the
        neighbours suffered. The details hold both accuracies, Original's gap and the near classes.

    Raises:
        MetricError: If no retain class is near, all are, a side has no test image, or a logit is not a number.

    Source: own; collateral damage to similar classes. Known weakness: even the nearest prototypes may be far away.
    """
    near, rule = _near(features, references.original, neighbours, count)
    rest = np.setdiff1d(features.retain_classes, near)
    if len(near) == 0 or len(rest) == 0:
        raise MetricError(f"by {rule} {len(near)} retain classes are near and {len(rest)} are not; both are needed")
    judged = [_accuracy(features, classes) for classes in (near, rest)]
    original = [_accuracy(references.original, classes) for classes in (near, rest)]
    details = {
        "near": judged[0],
        "rest": judged[1],
        "original_gap": original[0] - original[1],
        "neighbours": rule,
        "near_classes": near.tolist(),
    }
    return Measurement(judged[0] - judged[1], details)


def _near(features: FeatureFile, original: FeatureFile, rule: str, count: int) -> tuple[NDArray[np.int64], str]:
    """Return the near retain classes and the rule that found them."""
    groups, retain = features.superclasses, features.retain_classes
    if rule == "superclass" and len(groups) == 0:
        raise MetricError("the data set has no superclasses")
    if rule != "prototypes" and len(groups):
        near = retain[np.isin(groups[retain], groups[features.forget_classes])]
        if rule == "superclass" or 0 < len(near) < len(retain):
            return near, "superclass"
    return nearest_classes(original.prototypes("full"), features.forget_classes, retain, count), "prototypes"


def _accuracy(features: FeatureFile, classes: NDArray[np.int64]) -> float:
    return accuracy(features.rows("test/logits", classes), features.labels("test", classes), features.output_classes)
