"""COLA: collapses the features of retain images class by class, and then aligns the classifier with them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Positive, forward
from unlearnbench_zoo.features.duck import features_of


@declare(
    check_options={
        "collapse_epochs": 40,
        "batch_size": 128,
        "learning_rate": 5e-3,
        "temperature": 0.3,
        "batch_norm": "frozen",
    },
    ranges={
        **SEARCH,
        "collapse_epochs": Range(5, 60),
        "learning_rate": Range(1e-5, 1e-2, log=True),
        "temperature": Range(0.05, 1.0, log=True),
    },
)
def cola(
    model: nn.Module,
    task: UnlearningTask,
    *,
    collapse_epochs: Epochs = 10,
    epochs: Epochs = 10,
    batch_size: Count = 256,
    learning_rate: Positive = 5e-4,
    temperature: Positive = 0.1,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """COLA, collapse and align: forget by drawing the retain classes' features together, without any forget image.

    First only the supervised contrastive loss of retain images' features moves the layers below the classifier, so that
    what sets forget classes apart has no use any more; then cross-entropy on retain images moves the whole network.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited retain data.
        collapse_epochs: Passes over the retain images with the contrastive loss.
        epochs: Passes over them with cross-entropy.
        batch_size: Images in a step; the contrastive loss compares the images of a step with each other.
        learning_rate: Learning rate of Adam, in both parts.
        temperature: Temperature of the contrastive loss.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: the limited retain images, once per epoch of both parts.
    Changes: all parameters, and the batch-norm statistics unless they are frozen.

    Source: COLA in "An Information Theoretic Evaluation Metric for Strong Unlearning" (Jeon, Jeung, Kim, No, Choi;
    arXiv 2405.17878), with the loss of "Supervised Contrastive Learning" (Khosla et al., NeurIPS 2020; its L_out). The
    contrastive loss reads the classifier's own input, normalised to length 1, of one view of each image, without a
    projection head. Epochs, batch, rate and temperature are our choice.
    """

    def collapse(images: Tensor, labels: Tensor) -> Tensor:
        return contrastive_loss(features_of(model, images, task), labels, temperature)

    def align(images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(forward(model, images, task), labels)

    for number, loss in ((collapse_epochs, collapse), (epochs, align)):
        # Each part has an optimizer of its own, whose averages know nothing of the other part's loss.
        descent = Descent(model, torch.optim.Adam(model.parameters(), lr=learning_rate), batch_norm)
        for _ in descent.epochs(number):
            for images, labels in task.batches(1, "retain", batch_size=batch_size):
                descent.step(loss(images, labels))
            task.end_epoch(model)
    return model


def contrastive_loss(features: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the supervised contrastive loss of a batch: the mean over images that have another of their class in it.

    The loss of such an image i is the mean over the others p of its class of -log(exp(z_i z_p / t) / sum over all
    others a of exp(z_i z_a / t)), where z are the features at length 1. It is 0 if no two images share a class.

    Args:
        features: (B, D) features.
        labels: (B,) class indices.
        temperature: The temperature t, > 0.
    """
    directions = F.normalize(features, dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    similarity = (directions @ directions.T / temperature).masked_fill(itself, -torch.inf)
    alike = (labels[:, None] == labels[None, :]) & ~itself
    logarithms = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~alike, 0.0)
    paired = alike.any(dim=1)
    losses = -logarithms.sum(dim=1) / alike.sum(dim=1).clamp(min=1)
    return losses[paired].mean() if bool(paired.any()) else 0.0 * features.sum()
