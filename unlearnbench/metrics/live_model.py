"""The judged model itself, for the few metrics that stored features cannot serve."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.models.batches import Batches
from unlearnbench.models.classifier import output_classes


@dataclass(frozen=True)
class LiveModel:
    """Copies of the judged model, and the images that a metric may show it.

    Attributes:
        load: Returns a new copy on the device, in evaluation mode.
        limited: Returns the limited images.
        test: Returns the test images.
        original: Returns a new copy of Original of the same problem and seed, likewise.
        kept: What metrics of the cell leave for each other; see `once`.
    """

    load: Callable[[], nn.Module]
    limited: Callable[[], Batches]
    test: Callable[[], Batches]
    original: Callable[[], nn.Module]
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return what `compute` does, or did in an earlier call with the same key for the same cell.

        Args:
            key: All that the result depends on beside the cell; one metric's keys should not be another's.
            compute: Its result lies in memory until the cell is judged; not to be changed.
        """
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]


def outputs_of(model: nn.Module, labels: Tensor) -> Tensor:
    """Return which output of a model stands for each of (N,) class indices, (N,) int64.

    Raises:
        MetricError: If a class has no output, as after weight deletion.
    """
    known = output_classes(model)
    missing = labels[~torch.isin(labels, known)].unique().tolist()
    if missing:
        raise MetricError(f"the model has no output for the classes {missing}")
    return torch.searchsorted(known, labels)
