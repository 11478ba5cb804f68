"""Linear-probe recovery: what a new linear classifier finds in frozen features."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unlearnbench.features import FeatureFile
from unlearnbench.measurement import Measurement, References, require_finite
from unlearnbench.metrics.shots import draw_shots


class LinearProbe:
    """A least-squares classifier with class-balanced weights, in closed form.

    Minimises sum_i w_i |y_i - W z_i - b|^2 + ridge * N * |W|^2 over W and b, where y_i is the one-hot label,
    z_i the standardised feature and w_i = N / (number of classes * images of its class).

    Args:
        features: (N, D).
        labels: (N,) class indices.
        ridge: Weight of the penalty, > 0.
    """

    def __init__(self, features: NDArray[np.float64], labels: NDArray[np.int64], ridge: float) -> None:
        self.classes, index = np.unique(labels, return_inverse=True)
        counts = np.bincount(index)
        weights = len(labels) / (len(counts) * counts[index])
        self._mean = np.average(features, axis=0, weights=weights)
        std = np.sqrt(np.average((features - self._mean) ** 2, axis=0, weights=weights))
        # A dead feature stays 0.
        self._scale = np.where(std > 1e-12, std, 1.0)
        root = np.sqrt(weights)[:, None]
        inputs = root * (features - self._mean) / self._scale
        targets = np.eye(len(counts))[index]
        self._intercept = np.average(targets, axis=0, weights=weights)
        targets = root * (targets - self._intercept)
        penalty = ridge * len(labels)
        # Of the two equal forms of the solution the one with the smaller matrix.
        if features.shape[1] <= len(labels):
            matrix = inputs.T @ inputs + penalty * np.eye(features.shape[1])
            self._weight = np.linalg.solve(matrix, inputs.T @ targets)
        else:
            matrix = inputs @ inputs.T + penalty * np.eye(len(labels))
            self._weight = inputs.T @ np.linalg.solve(matrix, targets)

    def predict(self, features: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the class of each row; of equal scores the lowest class index."""
        scores = (features - self._mean) / self._scale @ self._weight + self._intercept
        found: NDArray[np.int64] = self.classes[scores.argmax(axis=1)]
        return found


def probe_accuracies(features: FeatureFile, shots: int | None, draws: int, ridge: float) -> list[float]:
    """Return for each draw the probe's accuracy on the forget classes' test images.

    The probe learns from all limited retain images and `shots` limited images of each forget class.
    """
    inputs = features.array("limited/features").astype(np.float64)
    labels = features.array("limited/labels")
    test = features.rows("test/features", features.forget_classes).astype(np.float64)
    truth = features.labels("test", features.forget_classes)
    require_finite(limited_features=inputs, test_features=test)
    retain = np.flatnonzero(~np.isin(labels, features.forget_classes))
    found = []
    for chosen in draw_shots(labels, features.forget_classes, shots, draws, features.seed):
        rows = np.concatenate([retain, chosen])
        probe = LinearProbe(inputs[rows], labels[rows], ridge)
        found.append(float((probe.predict(test) == truth).mean()))
    return found


def probe_recovery(
    features: FeatureFile,
    references: References,
    *,
    shots: Annotated[int, Field(gt=0)] | None = None,
    draws: Annotated[int, Field(gt=0)] = 5,
    ridge: Annotated[float, Field(gt=0)] = 0.01,
) -> Measurement:
    """Linear-probe recovery: accuracy of a new linear classifier on the forget classes, minus FDR's.

        recovery = accuracy of the probe on the judged model's features - the same on FDR's

    The features (M, D) are frozen; a least-squares classifier with class-balanced weights and a ridge penalty learns
    from all limited retain images and `shots` limited images of each forget class. It is judged on the forget
    classes' test images with all K classes competing.

    Args:
        features: The judged model's features.
        references: FDR of the same seed gets the same images.
        shots: Images of each forget class to learn from; all limited ones if None.
        draws: How many times the images are drawn; the mean counts.
        ridge: Weight of the penalty.

    Returns:
        A difference of fractions, in [-1, 1]: 0 is as retrained, above 0 knowledge comes back, below 0 damage.

    Raises:
        MetricError: If a forget class has fewer limited images, or a feature is not finite.

    Source: linear probes (Alain and Bengio, 2016) as they are used for unlearning; least squares in closed form
    instead of a logistic fit, so that it takes no time and has no stopping rule. Known weakness: what a non-linear
    probe would find is not seen, and wide features fit few images by chance; hence the difference to FDR.
    """
    judged = probe_accuracies(features, shots, draws, ridge)
    retrained = probe_accuracies(references.retrained, shots, draws, ridge)
    means = [float(np.mean(accuracies)) for accuracies in (judged, retrained)]
    details = {"judged": means[0], "retrained": means[1], "judged_by_draw": judged, "retrained_by_draw": retrained}
    return Measurement(means[0] - means[1], details)
