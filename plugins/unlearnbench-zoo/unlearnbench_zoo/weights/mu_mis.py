"""MU-Mis: makes the forget images' own logits as little sensitive to the image as those of other classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Momentum, Positive, forward


@declare(
    check_options={"epochs": 20, "batch_size": 16},
    ranges={**SEARCH, "learning_rate": Range(1e-6, 1e-2, log=True), "momentum": (0.0, 0.9)},
)
def mu_mis(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 10,
    batch_size: Count = 64,
    learning_rate: Positive = 1e-4,
    momentum: Momentum = 0.9,
    batch_norm: BatchNorm = "frozen",
) -> nn.Module:
    """MU-Mis, minimising input sensitivity: take back what forget images contributed, without any retain image.

    What an image contributed to training shows in how much more its own class's logit depends on it than another
    class's does. The loss is the mean over forget images x with label c of |df_c/dx|^2 - |df_k/dx|^2, with squared
    Euclidean norms and another class k that is drawn for each image in each step.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited forget data.
        epochs: Passes over the forget images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        momentum: Momentum of SGD.
        batch_norm: `frozen` keeps the original's statistics; `training` normalises with the batch's and updates them,
            and an image's sensitivity is then that of the whole batch's logits.

    Returns:
        The unlearned model, with the same input and output shapes.

    Raises:
        TrainingFailedError: If a loss is no longer finite; the second term has no bound.

    Reads: the limited forget images, once per epoch; a step takes two gradients to the images and one to the weights.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Remaining-data-free Machine Unlearning by Suppressing Sample Contribution" (Cheng, Huang, Zhou, He, Yang,
    Wu, Huang; ICLR 2026; arXiv 2402.15109), written from the paper's loss. Epochs, batch, rate, momentum and frozen
    statistics are our choice. Nothing ends it early: with too many steps the retain classes go too, and then the losses
    are no longer finite. Attention is computed in the plain way, since its fast kernels have no second derivative.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=momentum)
    descent, generator = Descent(model, optimizer, batch_norm), task.generator("other classes")
    for _ in descent.epochs(epochs):
        for images, labels in task.batches(1, "forget", batch_size=batch_size):
            others = other_classes(labels, task.num_classes, generator)
            descent.step(contribution(model, images, labels, others, task).mean())
        task.end_epoch(model)
    return model


def other_classes(labels: Tensor, num_classes: int, generator: torch.Generator) -> Tensor:
    """Return for each of (B,) labels one of the other classes, all equally likely."""
    steps = torch.randint(1, num_classes, labels.shape, generator=generator).to(labels.device)
    return (labels + steps) % num_classes


def contribution(model: nn.Module, images: Tensor, labels: Tensor, others: Tensor, task: UnlearningTask) -> Tensor:
    """Return how much more sensitive the logit of an image's label is to the image than that of another class, (B,)."""
    inputs = images.detach().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = forward(model, inputs, task)
        return squared_sensitivity(logits, labels, inputs) - squared_sensitivity(logits, others, inputs)


def squared_sensitivity(logits: Tensor, classes: Tensor, inputs: Tensor) -> Tensor:
    """Return the squared norm of the gradient of one logit of each image to the image, (B,), with its own graph."""
    chosen = logits.gather(1, classes[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, inputs, create_graph=True)
    return gradient.flatten(1).square().sum(dim=1)
