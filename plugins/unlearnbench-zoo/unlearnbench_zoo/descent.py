"""What the trained unlearners share: option types, and optimizer steps that check that losses are finite."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.training import check_finite
from unlearnbench.registry.declare import Range, SearchSpace
from unlearnbench.unlearners.task import LimitedPart, UnlearningTask

Epochs = Annotated[int, Field(ge=0)]
Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]
BatchNorm = Literal["training", "frozen"]

# `unlearnbench tune` searches these ranges for the unlearners that are plain trainings.
SEARCH: dict[str, SearchSpace] = {
    "epochs": Range(5, 60),
    "batch_size": (16, 32, 64, 256),
    "learning_rate": Range(1e-4, 1e-1, log=True),
    "batch_norm": ("training", "frozen"),
}


class Descent:
    """Steps down a loss with one optimizer, for the parameters of one model.

    Args:
        model: Model that is put into training mode at the start of each epoch.
        optimizer: Optimizer of the model's parameters.
        batch_norm: `frozen` keeps batch-norm layers in evaluation mode, so that their statistics stay the same.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, batch_norm: BatchNorm) -> None:
        self.optimizer = optimizer
        self._model = model
        self._batch_norm = batch_norm
        self._total = torch.zeros(())

    def epochs(self, number: int) -> Iterator[int]:
        """Yield the number of each epoch, from 1, and check after each that its losses were finite.

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
        # The sum stays on the device, because reading each loss would make the host wait for every step.
        self._total = self._total.to(loss.device) + loss.detach()


def training_mode(model: nn.Module, batch_norm: BatchNorm) -> None:
    """Put a model into training mode, but its batch-norm layers into evaluation mode if they are frozen."""
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
        target: (B, K) probabilities; classes of probability 0 contribute nothing.
    """
    return F.kl_div(F.log_softmax(student, dim=1), target, reduction="batchmean")


def endless(task: UnlearningTask, kind: LimitedPart, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield shuffled batches of a kind for as long as they are asked for."""
    return task.batches(sys.maxsize, kind, batch_size=batch_size)


def forget_accuracy(model: nn.Module, task: UnlearningTask) -> float:
    """Return the accuracy on the plain limited forget images, and leave the model in evaluation mode."""
    model.eval()
    with torch.no_grad():
        hits = [int((model(images).argmax(dim=1) == labels).sum()) for images, labels in task.plain("forget")]
    return sum(hits) / task.size("forget")
