"""What every training here needs of a network: its features beside its logits, and a rate that rises and falls."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.stages import Stage, captured_stages
from unlearnbench.unlearners.task import UnlearningTask


def features_and_logits(
    model: nn.Module, images: Tensor, task: UnlearningTask, stages: Sequence[Stage] = ()
) -> tuple[Tensor, Tensor]:
    """Return the features (B, D) and logits (B, K) of a batch in float32, computed in the recipe's precision.

    Pooled outputs of earlier stages stand before the features in the same row, so that D is then the sum of all widths.
    """
    with (
        captured_features(model, with_gradient=True) as captured,
        captured_stages(model, stages) as earlier,
        task.autocast(),
    ):
        logits = model(images)
    return torch.cat([*earlier, captured[0].float()], dim=1), logits.float()


def plain_features(model: nn.Module, task: UnlearningTask, stages: Sequence[Stage] = ()) -> tuple[Tensor, Tensor]:
    """Return the features (N, D) of all limited images in evaluation mode, and their labels (N,)."""
    model.eval()
    with torch.no_grad():
        parts = [(features_and_logits(model, images, task, stages)[0], labels) for images, labels in task.plain()]
    return torch.cat([features for features, _ in parts]), torch.cat([labels for _, labels in parts])


def one_cycle(recipe: TrainingRecipe, epochs: int, highest: float) -> TrainingRecipe:
    """Return a recipe whose learning rate rises to its highest value and falls again within the epochs."""
    return recipe.model_copy(update={"schedule": "one_cycle", "epochs": epochs, "learning_rate": highest})


def mixed(images: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image (B, C, H, W) mixed with another one of the batch, with one uniformly drawn share for all.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization", 2018; without its labels, since a teacher says
    what a mixed image shows.
    """
    share = float(torch.rand((), generator=generator))
    others = torch.randperm(len(images), generator=generator).to(images.device)
    return share * images + (1.0 - share) * images[others]
