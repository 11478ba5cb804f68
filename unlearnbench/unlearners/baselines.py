"""Baselines 2 to 9: training and fine-tuning on the limited data."""

from __future__ import annotations

from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn

from unlearnbench.task import UnlearningTask
from unlearnbench.training import check_finite


def folnrc(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 10,
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4,
) -> nn.Module:
    """FOLNRC: fine-tune the original model on the limited retain data.

    Args:
        model: Copy of the original model, ours to change.
        task: The limited data; retain images are read.
        epochs: Passes over the limited retain data.
        learning_rate: Of Adam.

    Returns:
        The fine-tuned model.

    Source: ERwP (Singh, Mazumder, Karim; ECCV 2022), baseline 8.
    """
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    model.train()
    for epoch in range(epochs):
        total = 0.0
        for images, labels in task.batches(1, "retain"):
            with task.autocast():
                logits = model(images)
            loss = F.cross_entropy(logits.float(), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += float(loss.detach())
        check_finite(total, f"epoch {epoch + 1}")
    return model
