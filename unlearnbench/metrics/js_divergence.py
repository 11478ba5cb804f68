"""Jensen-Shannon divergence to the retrained model's outputs."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.measurement import References
from unlearnbench.metrics.probabilities import class_probabilities


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
    divergence = np.zeros(len(first))
    for probabilities in (first, second):
        positive = probabilities > 0
        ratio = np.divide(probabilities, middle, out=np.ones_like(middle), where=positive)
        divergence += (probabilities * np.log(ratio)).sum(axis=1) / 2
    # Rounding can leave a trace below 0 where p and q are equal.
    return np.maximum(divergence, 0.0)


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
    outputs = np.union1d(features.output_classes, references.retrained.output_classes)
    first, second = (
        class_probabilities(file.rows("test/logits", classes), file.output_classes, outputs)
        for file in (features, references.retrained)
    )
    return float(jensen_shannon(first, second).mean())
