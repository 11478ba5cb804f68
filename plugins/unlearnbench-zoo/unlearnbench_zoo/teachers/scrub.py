"""SCRUB: alternate steps away from the teacher on forget images and towards it on retain images."""

from __future__ import annotations

import copy
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.training import set_learning_rate
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import BatchNorm, Count, Descent, Epochs, Positive, Weight, divergence, forward


@declare(
    check_options={"forget_batch_size": 8, "learning_rate": 5e-3, "weight_decay": 0.0},
    ranges={
        "epochs": Range(5, 40),
        "max_epochs": Range(1, 5),
        "learning_rate": Range(1e-4, 1e-2, log=True),
        "weight_decay": (0.0, 0.1),
        "forget_batch_size": (8, 16, 32, 64),
        "batch_norm": ("training", "frozen"),
    },
)
def scrub(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 10,
    max_epochs: Epochs = 3,
    gamma: Weight = 1.0,
    alpha: Weight = 0.5,
    temperature: Positive = 2.0,
    forget_batch_size: Count = 64,
    retain_batch_size: Count = 32,
    learning_rate: Positive = 5e-4,
    weight_decay: Weight = 0.1,
    decay_epochs: tuple[Annotated[int, Field(gt=0)], ...] = (5, 8, 9),
    decay_factor: Positive = 0.1,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """SCRUB: alternate epochs that push the forget images' outputs off the original's and epochs that repair.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Number of min epochs, which are passes over the retain images.
        max_epochs: Number of min epochs, from the first, that begin with a max epoch, a pass over the forget images.
        gamma: Weight of the retain images' cross-entropy.
        alpha: Weight of the retain images' distillation.
        temperature: Temperature of the distillation.
        forget_batch_size: Images in a step of a max epoch.
        retain_batch_size: Images in a step of a min epoch.
        learning_rate: Learning rate of Adam.
        weight_decay: Weight decay of Adam.
        decay_epochs: Epochs, counted from 1, after which the learning rate falls.
        decay_factor: Factor that it falls by.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If the loss is no longer finite, as the max epochs have no upper bound.

    Reads: the limited retain images once per epoch, the forget images once per max epoch; the teacher sees both.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: SCRUB in "Towards Unbounded Machine Unlearning" (Kurmanji, Triantafillou, Hayes, Triantafillou; NeurIPS
    2023; arXiv 2302.09880), defaults of its code for small problems. SCRUB+R, the rewinding for privacy, is left out.
    """
    teacher = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate, weight_decay=weight_decay)
    descent = Descent(model, optimizer, batch_norm)

    def distance(images: Tensor, logits: Tensor) -> Tensor:
        with torch.no_grad():
            target = (forward(teacher, images, task) / temperature).softmax(dim=1)
        return temperature**2 * divergence(logits / temperature, target)

    for epoch in descent.epochs(epochs):
        set_learning_rate(optimizer, learning_rate * decay_factor ** sum(epoch > step for step in decay_epochs))
        if epoch <= max_epochs:
            for images, _ in task.batches(1, "forget", batch_size=forget_batch_size):
                descent.step(-distance(images, forward(model, images, task)))
        for images, labels in task.batches(1, "retain", batch_size=retain_batch_size):
            logits = forward(model, images, task)
            descent.step(gamma * F.cross_entropy(logits, labels) + alpha * distance(images, logits))
        task.end_epoch(model)
    return model
