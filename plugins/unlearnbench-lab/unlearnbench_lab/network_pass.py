"""What every training here needs of a network: its features beside its logits, and a rate that rises and falls."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from unlearnbench.models.classifier import captured_features
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.stages import Stage, captured_stages, find_stages
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


def feature_parts(stages: Sequence[Stage]) -> list[slice]:
    """Return the columns of each earlier stage's outputs, and last of the features, as `features_and_logits` joins."""
    ends = [*accumulate(stage.width for stage in stages)]
    return [slice(start, end) for start, end in zip([0, *ends], [*ends, None], strict=True)]


def earlier_stages(model: nn.Module, task: UnlearningTask) -> tuple[Stage, ...]:
    """Return the stages before the features."""
    return find_stages(model, torch.zeros(1, *task.image_shape, device=task.device))[0]


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


def strongly_augmented(images: Tensor, task: UnlearningTask, generator: torch.Generator) -> Tensor:
    """Return normalised images (B, C, H, W), each changed by one operation of colour or shape at a random strength.

    Source: Müller and Hutter, "TrivialAugment: Tuning-free Yet State-of-the-Art Data Augmentation", 2021, with its wide
    ranges, as torchvision has it.
    """
    # Its import takes a second, and no other option needs it.
    from torchvision.transforms.v2 import TrivialAugmentWide

    change = TrivialAugmentWide()
    pixels = (255.0 * task.pixels(images)).round().clamp(0, 255).to(torch.uint8)
    # It draws from the global stream.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        changed = torch.stack([change(image) for image in pixels])
    return task.normalise(changed.float() / 255.0)
