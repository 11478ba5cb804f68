"""NegGrad+: gradient descent on retain images and ascent on forget images, in one loss."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Momentum, Positive, endless, forward

Batch = tuple[Tensor, Tensor]


@declare(check_options={"alpha": 0.9, "epochs": 20, "batch_size": 32}, ranges={**SEARCH, "alpha": Range(0.8, 0.99)})
def neggrad_plus(
    model: nn.Module,
    task: UnlearningTask,
    *,
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.95,
    epochs: Epochs = 10,
    batch_size: Count = 256,
    learning_rate: Positive = 0.01,
    momentum: Momentum = 0.9,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """NegGrad+: minimise alpha * CE(retain) - (1 - alpha) * CE(forget); with alpha 0 it is plain gradient ascent.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        alpha: Weight of the retain images; with 0 none is read.
        epochs: Passes over the retain images, or over the forget images if alpha is 0.
        batch_size: Images of each kind in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite, as the ascent has no lower bound.

    Reads: the limited retain images once per epoch, and as many batches of forget images, over and over again.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: NegGrad+ in "Towards Unbounded Machine Unlearning" (Kurmanji, Triantafillou, Hayes, Triantafillou;
    NeurIPS 2023; arXiv 2302.09880). Defaults are those of its code. The pull towards the original weights, whose
    weight is 0 there by default, is left out. As there, the two kinds of images pass through the network separately.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    descent = Descent(model, optimizer, batch_norm)
    for _ in descent.epochs(epochs):
        for forget, retain in _pairs(task, alpha, batch_size):
            loss = -(1 - alpha) * F.cross_entropy(forward(model, forget[0], task), forget[1])
            if retain is not None:
                loss = loss + alpha * F.cross_entropy(forward(model, retain[0], task), retain[1])
            descent.step(loss)
        task.end_epoch(model)
    return model


def _pairs(task: UnlearningTask, alpha: float, batch_size: int) -> Iterator[tuple[Batch, Batch | None]]:
    """Yield the batches of one epoch: forget images, and retain images unless they have no weight."""
    if alpha == 0:
        for batch in task.batches(1, "forget", batch_size=batch_size):
            yield batch, None
        return
    # The retain batches come first, so that no forget batch is read in vain when they run out.
    for retain, forget in zip(
        task.batches(1, "retain", batch_size=batch_size), endless(task, "forget", batch_size), strict=False
    ):
        yield forget, retain
