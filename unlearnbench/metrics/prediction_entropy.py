"""How sure the classifier is of forget images."""

from __future__ import annotations

import numpy as np

from unlearnbench.errors import MetricError
from unlearnbench.features import FeatureFile
from unlearnbench.metrics.probabilities import class_probabilities, entropy


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
