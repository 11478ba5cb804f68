"""DELETE: distillation of the original's own outputs, without the forget classes, on the forget images."""

from __future__ import annotations

import copy

import torch
from torch import nn
from unlearnbench.registry.declare import declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Momentum, Positive, divergence, forward


@declare(check_options={"learning_rate": 0.01}, ranges=SEARCH)
def delete(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 20,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-4,
    momentum: Momentum = 0.9,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """DELETE: on forget images alone, train towards the original's softmax with the forget logits masked.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited forget data.
        epochs: Passes over the forget images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images, once per epoch; the original model sees them too.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Decoupled Distillation to Erase" (Zhou, Zheng, Mao, Wu, Wang, Cao; CVPR 2025; arXiv 2503.23751), defaults
    of its code for CIFAR-10 (it uses 5e-5 for CIFAR-100). The code masks the image's own class; here all forget
    classes are masked, because with several of them the mass would only move from one to another.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    descent = Descent(model, optimizer, batch_norm)
    for _ in descent.epochs(epochs):
        for images, _ in task.batches(1, "forget", batch_size=batch_size):
            with torch.no_grad():
                masked = forward(original, images, task).index_fill(1, task.forget_classes, -torch.inf)
            descent.step(divergence(forward(model, images, task), masked.softmax(dim=1)))
        task.end_epoch(model)
    return model
