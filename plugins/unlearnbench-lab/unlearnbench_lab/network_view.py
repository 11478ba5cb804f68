"""A view of the features that no method of the lab pushes against: a network with a hidden layer."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field
from sklearn.neural_network import MLPClassifier
from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.measurement import Measurement, require_finite
from unlearnbench.seeds import derived_seed


def network_view_accuracy(
    features: FeatureFile,
    *,
    hidden: Annotated[int, Field(gt=0)] = 128,
    epochs: Annotated[int, Field(gt=0)] = 20,
) -> Measurement:
    """Network-view accuracy: share of the forget classes' test images whose class a small network finds.

        (1/N) sum_i [class that the network finds for f_i = label_i], over the N forget test images; f (N, D)

    The network has one hidden layer of rectified units. It learns all K classes from the standardised features of the
    file's images for probes, which no method saw.

    Args:
        features: The judged model's features.
        hidden: Number of hidden units.
        epochs: Passes over the images for probes, with Adam at a rate of 1e-3.

    Returns:
        A fraction in [0, 1]. The yardstick is FDR's value, not 0: a value below it means damage.

    Raises:
        MetricError: If a forget class has no test image, there are no images for probes, or a feature is not finite.

    Source: own, beside the three views of the ranking, none of which is non-linear and learned. Known weakness: with
    few images for probes the network overfits, so that it finds less than the linear probe.
    """
    labels = features.array("probe/labels")
    if not len(labels):
        raise MetricError("the feature file has no images for probes, as the limited data are all training images")
    known = features.array("probe/features").astype(np.float64)
    rows = features.rows("test/features", features.forget_classes).astype(np.float64)
    require_finite(known_features=known, test_features=rows)
    mean, scale = known.mean(axis=0), np.maximum(known.std(axis=0), 1e-12)
    network = MLPClassifier((hidden,), random_state=derived_seed(features.seed, "network") % 2**32)
    for _ in range(epochs):
        network.partial_fit((known - mean) / scale, labels, classes=np.unique(labels))
    hits = network.predict((rows - mean) / scale) == features.labels("test", features.forget_classes)
    return Measurement(float(hits.mean()), hits=hits)
