"""DUCK: moves the features of forget images to the nearest centroid of a retain class."""

from __future__ import annotations

import copy
from itertools import islice
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.training import set_learning_rate
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import (
    SEARCH,
    BatchNorm,
    Count,
    Descent,
    Epochs,
    Positive,
    Weight,
    forget_accuracy,
    forward,
)


@declare(
    check_options={"learning_rate": 3e-3, "batch_size": 32, "epochs": 30},
    ranges={**SEARCH, "learning_rate": Range(1e-5, 1e-2, log=True), "retain_weight": Range(0.5, 3.0)},
)
def duck(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 200,
    batch_size: Count = 256,
    learning_rate: Positive = 4e-4,
    forget_weight: Weight = 1.0,
    retain_weight: Weight = 1.4,
    temperature: Positive = 2.0,
    retain_batches: Count = 5,
    decay_epochs: tuple[Annotated[int, Field(gt=0)], ...] = (25, 40),
    decay_factor: Positive = 0.5,
    target_accuracy: Annotated[float, Field(ge=0, le=1)] = 0.01,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """DUCK: metric learning that moves forget images' features to the nearest retain class's centroid.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Maximum number of passes over the forget images.
        batch_size: Images of each kind in a step.
        learning_rate: Learning rate of Adam.
        forget_weight: Weight of the cosine distance to the centroid, the paper's lambda 1.
        retain_weight: Weight of the retain images' cross-entropy, the paper's lambda 2.
        temperature: Temperature that divides the retain images' logits.
        retain_batches: Number of steps for each batch of forget images, each with retain images of its own.
        decay_epochs: Epochs, counted from 1, after which the learning rate falls.
        decay_factor: Factor that it falls by.
        target_accuracy: Accuracy on the forget images; training ends after the first epoch with a lower one.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images for the centroids; then in each epoch the forget images, once for every step
        that they take part in and once to test whether they are recognised, and at most `retain_batches` batches of
        retain images for each of their batches. A copy of the original sees the forget images too.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: "DUCK: Distance-based Unlearning via Centroid Kinematics" (Cotogni, Bonato, Sabetta, Pelosin, Nicolosi;
    arXiv 2312.02052), defaults of the paper and its code. Centroids are those of plain images. The nearest one for an
    image is computed from the original's features each time the image is seen, whereas the code stores it by the
    position in an unshuffled first epoch. No forget class has a centroid. The fine-tuning that the code does afterwards
    and the paper does not describe is left out.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    centroids = retain_centroids(original, task)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    descent = Descent(model, optimizer, batch_norm)
    for epoch in descent.epochs(epochs):
        set_learning_rate(optimizer, learning_rate * decay_factor ** sum(epoch > step for step in decay_epochs))
        for images, labels in task.batches(1, "forget", batch_size=batch_size):
            nearest = nearest_centroids(original, images, centroids, task)
            retain = islice(task.batches(1, "retain", batch_size=batch_size), retain_batches)
            for step, (others, other_labels) in enumerate(retain):
                if step > 0:
                    task.count(labels)
                moved = features_of(model, images, task)
                distance = (1 - F.cosine_similarity(moved, nearest)).mean()
                entropy = F.cross_entropy(forward(model, others, task) / temperature, other_labels)
                descent.step(forget_weight * distance + retain_weight * entropy)
        task.end_epoch(model)
        if forget_accuracy(model, task) < target_accuracy:
            break
    return model


def features_of(model: nn.Module, images: Tensor, task: UnlearningTask) -> Tensor:
    """Return the features (B, D) of a batch, in float32."""
    with captured_features(model, with_gradient=True) as captured:
        forward(model, images, task)
    return captured[0].float()


def retain_centroids(model: nn.Module, task: UnlearningTask) -> Tensor:
    """Return the mean feature of the plain limited images of each retain class that has any, (C, D)."""
    with torch.no_grad():
        parts = [(features_of(model, images, task), labels) for images, labels in task.plain("retain")]
    features, labels = torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])
    return torch.stack([features[labels == label].mean(dim=0) for label in labels.unique()])


def nearest_centroids(model: nn.Module, images: Tensor, centroids: Tensor, task: UnlearningTask) -> Tensor:
    """Return for each image the centroid with the smallest cosine distance to its features, (B, D)."""
    with torch.no_grad():
        features = F.normalize(features_of(model, images, task), dim=1)
        return centroids[(features @ F.normalize(centroids, dim=1).T).argmax(dim=1)]
