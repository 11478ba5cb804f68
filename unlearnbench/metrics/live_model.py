"""The judged model itself, for the few metrics that cannot be computed from stored features."""

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
        load: Function that returns a new copy on the device, in evaluation mode.
        limited: Function that returns the limited images.
        test: Function that returns the test images.
        original: Function that returns a new copy of Original of the same problem and seed, in evaluation mode.
        kept: Results that metrics of the cell share with each other; see `once`.
    """

    load: Callable[[], nn.Module]
    limited: Callable[[], Batches]
    test: Callable[[], Batches]
    original: Callable[[], nn.Module]
    kept: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """Return the result of `compute`, or that of an earlier call with the same key for the same cell.

        Args:
            key: Everything that the result depends on besides the cell; no two metrics may use the same key.
            compute: Function whose result stays in memory until the cell is judged and must not be changed.
        """
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]


def outputs_of(model: nn.Module, labels: Tensor) -> Tensor:
    """Return the output of a model, (N,) int64, that stands for each of (N,) class indices.

    Raises:
        MetricError: If a class has no output, as after weight deletion.
    """
    known = output_classes(model)
    missing = labels[~torch.isin(labels, known)].unique().tolist()
    if missing:
        raise MetricError(f"the model has no output for the classes {missing}")
    return torch.searchsorted(known, labels)
