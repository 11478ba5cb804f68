"""JiT: smooths the outputs around the forget images, so that they no longer stand out."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import BatchNorm, Count, Descent, Epochs, Positive, forward


@declare(
    check_options={"epochs": 20, "batch_size": 16, "learning_rate": 1e-3, "noise": 1.5},
    ranges={
        "epochs": Range(1, 20),
        "batch_size": (16, 64, 128),
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "noise": Range(0.05, 2.0, log=True),
        "batch_norm": ("training", "frozen"),
    },
)
def jit(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 1,
    batch_size: Count = 128,
    learning_rate: Positive = 3e-4,
    noise: Positive = 0.5,
    samples: Count = 25,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """JiT, just in time: minimise a local Lipschitz constant of the network at the forget images.

    The loss of an image x is the mean over noisy copies x' of |f(x) - f(x')| / |x - x'|, with Euclidean norms and f(x')
    taken as it is; losses of a batch are added up. No retain image is read.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited forget data.
        epochs: Passes over the forget images.
        batch_size: Images in a step.
        learning_rate: Learning rate of SGD.
        noise: Standard deviation of the noise on normalised images.
        samples: Number of noisy copies of each image.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited forget images, once per epoch, and `samples` noisy copies of each, which are counted.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "Zero-Shot Machine Unlearning at Scale via Lipschitz Regularization" (Foster, Fogarty, Schoepf, Oztireli,
    Brintrup; 2024; arXiv 2402.01401), rate, noise and samples of its code for a VGG-16 and one class. As there, no
    gradient flows through the noisy copies, and they are clipped to the range of the batch.
    """
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    descent, generator = Descent(model, optimizer, batch_norm), task.generator("noise")
    for _ in descent.epochs(epochs):
        for images, labels in task.batches(1, "forget", batch_size=batch_size):
            outputs, total = forward(model, images, task), torch.zeros((), device=task.device)
            for _ in range(samples):
                task.count(labels)
                copies = noisy(images, noise, generator)
                with torch.no_grad():
                    others = forward(model, copies, task)
                moved = (images - copies).flatten(1).norm(dim=1)
                total = total + ((outputs - others).norm(dim=1) / moved).sum()
            descent.step(total / samples)
        task.end_epoch(model)
    return model


def noisy(images: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Return images (B, C, H, W) with normal noise, clipped to the lowest and highest value of the batch."""
    drawn = torch.randn(images.shape, generator=generator).to(images.device)
    return (images + noise * drawn).clamp(images.min(), images.max())
