"""The judged model itself, for the few metrics that stored features cannot serve."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from unlearnbench.pipeline import Batches


@dataclass(frozen=True)
class LiveModel:
    """Copies of the judged model, and the images that a metric may show it.

    Attributes:
        load: Returns a new copy on the device, in evaluation mode.
        limited: Returns the limited images.
        test: Returns the test images.
    """

    load: Callable[[], nn.Module]
    limited: Callable[[], Batches]
    test: Callable[[], Batches]
