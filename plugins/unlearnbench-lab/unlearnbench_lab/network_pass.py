"""What every training here needs of a network: its features beside its logits, and a rate that rises and falls."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask


def features_and_logits(model: nn.Module, images: Tensor, task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """Return the features (B, D) and logits (B, K) of a batch in float32, computed in the recipe's precision."""
    with captured_features(model, with_gradient=True) as captured, task.autocast():
        logits = model(images)
    return captured[0].float(), logits.float()


def plain_features(model: nn.Module, task: UnlearningTask) -> tuple[Tensor, Tensor]:
    """Return the features (N, D) of all limited images in evaluation mode, and their labels (N,)."""
    model.eval()
    with torch.no_grad():
        parts = [(features_and_logits(model, images, task)[0], labels) for images, labels in task.plain()]
    return torch.cat([features for features, _ in parts]), torch.cat([labels for _, labels in parts])


def one_cycle(recipe: TrainingRecipe, epochs: int, highest: float) -> TrainingRecipe:
    """Return a recipe whose learning rate rises to its highest value and falls again within the epochs."""
    return recipe.model_copy(update={"schedule": "one_cycle", "epochs": epochs, "learning_rate": highest})
