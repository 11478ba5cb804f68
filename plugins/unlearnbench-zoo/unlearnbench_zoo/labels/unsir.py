"""UNSIR: impairs the model with noise that stands for the forget classes, then repairs it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import BatchNorm, Count, Descent, Epochs, Positive, Weight, forward


@declare(
    check_options={"noise_ratio": 0.5, "repair_epochs": 10, "batch_size": 32},
    ranges={
        "impair_learning_rate": Range(1e-3, 5e-2, log=True),
        "repair_learning_rate": Range(1e-3, 5e-2, log=True),
        "repair_epochs": Range(1, 30),
        "noise_ratio": Range(0.25, 2.0),
        "batch_size": (16, 32, 64, 256),
    },
)
def unsir(
    model: nn.Module,
    task: UnlearningTask,
    *,
    noise_images: Count = 32,
    noise_steps: Epochs = 40,
    noise_learning_rate: Positive = 0.1,
    noise_penalty: Weight = 0.1,
    noise_ratio: Positive = 1.0,
    impair_epochs: Epochs = 1,
    impair_learning_rate: Positive = 0.02,
    repair_epochs: Epochs = 1,
    repair_learning_rate: Positive = 0.01,
    batch_size: Count = 256,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """UNSIR: learn noise on which the original errs most, train on it under the forget labels, then repair.

    The method is zero-glance: no forget image is read.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited retain data and the forget classes.
        noise_images: Number of noise images learned for each forget class.
        noise_steps: Number of steps that each class's noise is learned for.
        noise_learning_rate: Learning rate of Adam for the noise.
        noise_penalty: Weight of the noise's mean squared norm.
        noise_ratio: Number of noise images for each retain image in an impair step.
        impair_epochs: Passes over the retain images together with noise.
        impair_learning_rate: Learning rate of Adam in the impair epochs.
        repair_epochs: Passes over the retain images alone.
        repair_learning_rate: Learning rate of Adam in the repair epochs.
        batch_size: Retain images in a step.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images, once per impair and repair epoch. Noise images are not counted.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Fast Yet Effective Machine Unlearning" (Tarun, Chundawat, Mandal, Kankanhalli; TNNLS 2023; arXiv
    2111.08947). The rates, the penalty and 5 x 8 noise steps are those of its notebook, and 32 noise images those of
    the SSD authors' port (the notebook has 256). Every noise batch is labelled with its own class. The limited retain
    images stand in for the notebook's 1,000 per class. Each impair step has retain images and noise drawn evenly from
    all forget classes, where the notebook shuffles copies of the noise among the images.
    """
    noise, noise_labels = learned_noise(model, task, noise_images, noise_steps, noise_learning_rate, noise_penalty)
    generator = task.generator("noise")
    impair = Descent(model, torch.optim.Adam(model.parameters(), lr=impair_learning_rate), batch_norm)
    for _ in impair.epochs(impair_epochs):
        for images, labels in task.batches(1, "retain", batch_size=batch_size):
            number = max(1, round(noise_ratio * len(labels)))
            drawn = torch.randint(len(noise), (number,), generator=generator).to(task.device)
            inputs, targets = torch.cat([images, noise[drawn]]), torch.cat([labels, noise_labels[drawn]])
            impair.step(F.cross_entropy(forward(model, inputs, task), targets))
        task.end_epoch(model)
    repair = Descent(model, torch.optim.Adam(model.parameters(), lr=repair_learning_rate), batch_norm)
    for _ in repair.epochs(repair_epochs):
        for images, labels in task.batches(1, "retain", batch_size=batch_size):
            repair.step(F.cross_entropy(forward(model, images, task), labels))
        task.end_epoch(model)
    return model


def learned_noise(
    model: nn.Module, task: UnlearningTask, number: int, steps: int, learning_rate: float, penalty: float
) -> tuple[Tensor, Tensor]:
    """Return noise that raises the model's cross-entropy for each forget class, and its labels.

    Args:
        model: Model, left in evaluation mode with its parameters unchanged.
        task: Task that knows the forget classes and the shape of the images.
        number: Number of noise images for a class.
        steps: Number of steps of Adam.
        learning_rate: Learning rate of Adam.
        penalty: Weight of the noise's mean squared norm.

    Returns:
        (F * number, C, H, W) normalised images and (F * number,) labels, class by class.
    """
    model.eval()
    parts = []
    for label in task.forget_classes.tolist():
        start = torch.randn(number, *task.image_shape, generator=task.generator("noise", label))
        noise = start.to(task.device).requires_grad_()
        labels = torch.full((number,), label, device=task.device)
        optimizer = torch.optim.Adam([noise], lr=learning_rate)
        for _ in range(steps):
            entropy = F.cross_entropy(forward(model, noise, task), labels)
            loss = penalty * noise.square().sum(dim=(1, 2, 3)).mean() - entropy
            (noise.grad,) = torch.autograd.grad(loss, [noise])
            optimizer.step()
        parts.append(noise.detach())
    return torch.cat(parts), task.forget_classes.repeat_interleave(number)
