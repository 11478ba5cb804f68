"""What a metric is given, and what it returns.

A metric is a function. The names of its positional arguments say what it needs:

    features    the judged model's `FeatureFile`
    references  `References`: the feature files of Original and FDR, same problem and seed
    costs       `Costs`: the image passes that made the judged model and FDR
    model       `LiveModel`: the model itself, for the few metrics that need more than features

Its keyword-only arguments are its options. It returns a float, or a `Measurement`: a float with details for the
record. A metric that cannot be computed raises `MetricError`, and the record then holds the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile


class Measurement(float):
    """A metric's value together with details for the record.

    Args:
        value: Value of the metric.
        details: JSON values for readers.
        hits: (N,) bool for a share of test images: which of them count, in the order of the feature file.
            With these, unlearners are compared image by image.
    """

    details: dict[str, Any]
    hits: NDArray[np.bool_] | None

    def __new__(
        cls, value: float, details: dict[str, Any] | None = None, hits: NDArray[np.bool_] | None = None
    ) -> Measurement:
        """Return `value` with its details."""
        made = super().__new__(cls, value)
        made.details = details or {}
        made.hits = hits
        return made


@dataclass(frozen=True)
class Missing:
    """A stand-in for something that a metric could ask for and that is not there.

    Attributes:
        reason: Why it is not there.
    """

    reason: str


# The reason why metrics that compare with FDR have no value where a manifest asks for none.
NO_FDR = 'no FDR: the manifest says fdr = "none" in [references]'

# The reason why nothing is compared with the cost of an FDR that was not trained here.
GIVEN_FDR = "FDR was given, and how many images its training read is not known"

# The reason why nothing is compared with the cost of a method of which only the weights are known.
NOT_RUN_HERE = "the method was not run here, and how many images it read is not known"


@dataclass(frozen=True)
class References:
    """The feature files of the reference models of the same problem and seed.

    Attributes:
        original: Feature file of the model trained on all classes.
        fdr_or_missing: Feature file of FDR, trained on the retain classes alone, or why there is none.
    """

    original: FeatureFile
    fdr_or_missing: FeatureFile | Missing

    @property
    def fdr(self) -> FeatureFile:
        """Feature file of FDR.

        Raises:
            MetricError: If there is no FDR.
        """
        if isinstance(self.fdr_or_missing, Missing):
            raise MetricError(self.fdr_or_missing.reason)
        return self.fdr_or_missing


@dataclass(frozen=True)
class Costs:
    """The training images that went through the network until a model was finished, by kind.

    Attributes:
        judged: Counts for the judged model, `forget` and `retain`. An unlearner's count starts at the original model.
        fdr: Counts for FDR.
    """

    judged: dict[str, int]
    fdr: dict[str, int]


def require_finite(**arrays: NDArray[Any]) -> None:
    """Check that arrays hold only finite numbers.

    Raises:
        MetricError: If one does not; the message gives its name and the number of rows.
    """
    for name, array in arrays.items():
        bad = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
        if bad.any():
            raise MetricError(f"{int(bad.sum())} of {len(array)} rows of {name} are not finite")
