"""What the trained methods share: option types, optimizer steps watched for losses that are not finite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.training import check_finite
from unlearnbench.registry.declare import Range, Search
from unlearnbench.unlearners.task import Kind, UnlearningTask

Epochs = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
BatchNorm = Literal["training", "frozen"]

# What `unlearnbench tune` searches for the methods that are plain trainings.
SEARCH: dict[str, Search] = {
    "epochs": Range(5, 60),
    "batch_size": (16, 32, 64, 256),
    "learning_rate": Range(1e-4, 1e-1, log=True),
    "batch_norm": ("training", "frozen"),
}


class Descent:
    """Steps down a loss, with one optimizer, for the parameters of one model.

    Args:
        model: Put into training mode at each epoch's start.
        optimizer: Of its parameters.
        batch_norm: `frozen` keeps batch-norm layers in evaluation mode, so that their statistics stay.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch_norm: BatchNorm) -> None:
        self.optimizer = optimizer
        self._model = model
        self._batch_norm = batch_norm
        self._total = torch.zeros(())

    def epochs(self, number: int) -> Iterator[int]:
        """Yield the epochs' numbers from 1; each ends with a look whether the losses were finite.

        Raises:
            TrainingFailedError: If the losses of an epoch were not finite.
        """
        for epoch in range(1, number + 1):
            training_mode(self._model, self._batch_norm)
            yield epoch
            check_finite(float(self._total), f"epoch {epoch}")

    def step(self, loss: Tensor) -> None:
        """Move the parameters down the loss's gradient."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        # A sum on the device: reading each loss would make the host wait for every step.
        self._total = self._total.to(loss.device) + loss.detach()


def training_mode(model: nn.Module, batch_norm: BatchNorm) -> None:
    """Put a model into training mode, its batch-norm layers into evaluation mode if they are frozen."""
    model.train()
    for module in model.modules():
        if batch_norm == "frozen" and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def forward(model: nn.Module, images: Tensor, task: UnlearningTask) -> Tensor:
    """Return a model's logits in float32, computed in the recipe's precision."""
    with task.autocast():
        logits: Tensor = model(images)
    return logits.float()


def divergence(student: Tensor, target: Tensor) -> Tensor:
    """Return KL(target || softmax(student)), summed over classes and averaged over images.

    Args:
        student: (B, K) logits.
        target: (B, K) probabilities; classes of probability 0 add nothing.
    """
    return F.kl_div(F.log_softmax(student, dim=1), target, reduction="batchmean")


def endless(task: UnlearningTask, kind: Kind, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches of a kind for as long as they are asked for."""
    return task.batches(sys.maxsize, kind, batch_size=batch_size)
