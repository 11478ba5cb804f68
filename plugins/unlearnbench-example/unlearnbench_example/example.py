"""The unlearner example: replace the rule in this file with your own."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask


# The check options are those with which the unlearner forgets on the conformance check's small problem, if its defaults
# do not. The ranges are those that `unlearnbench tune` searches.
@declare(
    check_options={"epochs": 20, "learning_rate": 1e-2},
    ranges={"epochs": Range(1, 40), "learning_rate": Range(1e-4, 1e-1, log=True)},
)
def example(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Annotated[int, Field(ge=0)] = 5,
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3,
) -> nn.Module:
    """Train towards the original model's outputs with the forget classes removed.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data and the forget classes.
        epochs: Passes over the limited data.
        learning_rate: Learning rate of SGD, with momentum 0.9.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: all limited images, once per epoch; the original model sees them too.
    Changes: all parameters and the batch-norm statistics.

    Source: the paper, its equations, and what is done differently here.
    """
    original = copy.deepcopy(model).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    model.train()
    for _ in range(epochs):
        for images, _ in task.batches(1):
            with torch.no_grad():
                target = original(images).index_fill(1, task.forget_classes, -torch.inf).softmax(dim=1)
            loss = F.cross_entropy(model(images), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # With `evaluate_every`, the model is judged in its present state.
        task.end_epoch(model)
    return model
