"""Distillation of the original without the forget classes: DELETE, and the control that moves the classifier alone."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import classifier
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
            target = without_forget_classes(original, images, task)
            descent.step(divergence(forward(model, images, task), target))
        task.end_epoch(model)
    return model


@declare(
    check_options={"epochs": 40, "batch_size": 16, "learning_rate": 0.02},
    ranges={name: space for name, space in SEARCH.items() if name != "batch_norm"},
)
def head_distillation(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 10,
    batch_size: Count = 128,
    learning_rate: Positive = 0.01,
) -> nn.Module:
    """Head distillation, a control: only the classifier learns the original's softmax with the forget logits masked.

    The features are the original's to the bit, so that a metric that calls this forgetting looks at outputs alone.
    Tables show the row without a rank, as they do weight deletion.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over all limited images.
        batch_size: Images in a step.
        learning_rate: Learning rate of Adam.

    Returns:
        The model with the same features, and the same input and output shapes.

    Reads: all limited images, once per epoch; the original model sees them too.
    Changes: only the classifier; batch-norm statistics stay the same.

    Source: HD in "An Information Theoretic Evaluation Metric for Strong Unlearning" (Jeon, Jeung, Kim, No, Choi; 2024;
    arXiv 2405.17878), made there to show that outputs can be right while every layer below remembers. The paper forgets
    one class; here all forget logits are masked. Optimizer, rate and epochs are ours.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    model.requires_grad_(False).eval()
    head = nn.ModuleList(classifier(model).layers).requires_grad_(True)
    # Everything below the classifier stays in evaluation mode, so that no statistics move.
    descent = Descent(head, torch.optim.Adam(head.parameters(), lr=learning_rate), "frozen")
    for _ in descent.epochs(epochs):
        for images, _ in task.batches(1, batch_size=batch_size):
            target = without_forget_classes(original, images, task)
            descent.step(divergence(forward(model, images, task), target))
        task.end_epoch(model)
        model.eval()
    return model.requires_grad_(True)


def without_forget_classes(original: nn.Module, images: Tensor, task: UnlearningTask) -> Tensor:
    """Return the original's probabilities (B, K) of a batch if no forget class could be."""
    with torch.no_grad():
        masked = forward(original, images, task).index_fill(1, task.forget_classes, -torch.inf)
    return masked.softmax(dim=1)
