"""Whether the retain classes that are most like the forgotten ones suffer more than the rest."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, References
from unlearnbench.metrics.accuracy import accuracy


def nearest_classes(
    prototypes: NDArray[np.float64], forget: NDArray[np.int64], retain: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the classes of `retain` that are among the `count` nearest of some class of `forget`, ascending.

    Args:
        prototypes: (K, D) mean features.
        forget: (F,) class indices.
        retain: (R,) class indices, ascending; of equally near ones the first count.
        count: Nearest classes of each forget class.
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

    Near are the retain classes of a forget class's superclass (CIFAR-100), or those with the nearest prototypes in
    Original's feature space (Euclidean, full training set).

    Args:
        features: The judged model's features.
        references: Original gives the neighbours, the same for every method.
        neighbours: `superclass`, `prototypes`, or `auto`: superclasses where the data set has them and they give
            near and other classes.
        count: Nearest prototypes of each forget class.

    Returns:
        A difference of fractions, in [-1, 1]. Original's value is the yardstick: below it the neighbours paid. The
        details hold both accuracies, Original's gap and the near classes.

    Raises:
        MetricError: If no retain class is near or all are, a side has no test image, or a logit is not a number.

    Source: own; collateral damage to similar classes. Known weakness: nearest prototypes may be far all the same.
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
