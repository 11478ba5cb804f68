"""Baseline 1: deletion of the classifier's rows for the forget classes."""

from __future__ import annotations

from torch import nn

from unlearnbench.models.classifier import keep_outputs
from unlearnbench.unlearners.task import UnlearningTask


def wd(model: nn.Module, task: UnlearningTask) -> nn.Module:
    """WD, weight deletion: remove the classifier's outputs of the forget classes.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The forget classes; no image is read.

    Returns:
        The model with K - F outputs; evaluation maps them back to class indices.

    Reads: no image.
    Changes: only the classifier; the features stay the same.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), baseline 1.
    """
    keep_outputs(model, task.retain_classes)
    return model
