"""POUR: trains the features towards the original's without the directions of the forget classes."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import classifier
from unlearnbench.registry.declare import Range, declare
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_zoo.descent import SEARCH, BatchNorm, Count, Descent, Epochs, Positive
from unlearnbench_zoo.features.duck import features_of


@declare(
    check_options={"epochs": 40, "batch_size": 16, "learning_rate": 3e-3},
    ranges={**SEARCH, "learning_rate": Range(1e-5, 1e-2, log=True)},
)
def pour(
    model: nn.Module,
    task: UnlearningTask,
    *,
    epochs: Epochs = 20,
    batch_size: Count = 128,
    learning_rate: Positive = 1e-3,
    batch_norm: BatchNorm = "training",
) -> nn.Module:
    """POUR-D: distil the original's features, projected off the forget classes' means, into the network.

    With the means of all classes taken as a simplex around their own mean, the directions that go are those from that
    centre to the forget classes. Every feature's target is what the projection leaves of the original's feature. The
    classifier is the original's and is not trained.

    Args:
        model: Copy of the original model, ours to change: images (N, C, H, W) to logits (N, K).
        task: The limited data of both kinds.
        epochs: Passes over all limited images.
        batch_size: Images in a step.
        learning_rate: Learning rate of Adam.
        batch_norm: `training` normalises with the batch's statistics and updates them; `frozen` keeps the original's.

    Returns:
        The unlearned model, with the same input and output shapes.

    Reads: all limited images, once for the means and once per epoch; a copy of the original sees them too.
    Changes: all parameters but the classifier's, and the batch-norm statistics unless they are frozen.

    Source: "POUR: A Provably Optimal Method for Unlearning Representations via Neural Collapse" (Le, Peng, Liu, Noble;
    2025; arXiv 2511.19339): the projection of its closed form POUR-P, which a network of a given form cannot hold, and
    the distillation of POUR-D. The paper forgets one class; here the directions of all forget classes go together.
    Its code is not public: the loss, half the squared distance of the features summed over their values, and all
    settings are ours. The centre stays where it is, since the features of a network with ReLU have a mean.
    """
    original = copy.deepcopy(model).eval().requires_grad_(False)
    centre, projection = forgetting_projection(original, task)
    for layer in classifier(model).layers:
        layer.requires_grad_(False)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    descent = Descent(model, torch.optim.Adam(parameters, lr=learning_rate), batch_norm)
    for _ in descent.epochs(epochs):
        for images, _ in task.batches(1, batch_size=batch_size):
            with torch.no_grad():
                target = centre + (features_of(original, images, task) - centre) @ projection
            moved = features_of(model, images, task)
            descent.step((moved - target).square().sum(dim=1).mean() / 2)
        task.end_epoch(model)
    return model.requires_grad_(True)


def forgetting_projection(model: nn.Module, task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """Return the mean (D,) of the classes' mean features, and the projection (D, D) off those of the forget classes.

    Args:
        model: The original model, in evaluation mode.
        task: Task that gives the limited images of each class, as a test shows them.
    """
    with torch.no_grad():
        parts = [(features_of(model, images, task), labels) for images, labels in task.plain()]
        features, labels = torch.cat([part for part, _ in parts]), torch.cat([part for _, part in parts])
        # A party's share may lack a class.
        held = labels.unique()
        means = torch.stack([features[labels == label].mean(dim=0) for label in held])
        centre = means.mean(dim=0)
        basis = torch.linalg.qr((means[task.is_forget(held)] - centre).T).Q
        return centre, torch.eye(len(centre), device=basis.device) - basis @ basis.T
