"""The target is where the map says, and it is where a feature comes to rest."""

import pytest
import torch
from torch import Tensor, nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.testing import check_unlearner
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.unlearners.unseen_targets import Target, unseen_targets

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


class Fixed(nn.Module):
    """Gives four numbers of an image as its features."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(images[:, 0, 0, :4])
        return logits


def task_of() -> UnlearningTask:
    pixels = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Batches(pixels, torch.arange(40) % 4, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, Fixed)


def test_the_target_is_the_map_that_fits_the_retain_images() -> None:
    task = task_of()
    images, labels = (torch.cat(parts) for parts in zip(*task.plain(), strict=True))
    unseen = images[:, 0, 0, :4]
    mapping, shift = torch.randn(4, 3, generator=torch.Generator().manual_seed(2)), torch.tensor([1.0, -2.0, 0.5])
    forget = task.is_forget(labels)
    # What Original gives to forget images has no part in the map.
    original = (unseen @ mapping + shift).where(~forget[:, None], 100.0)
    target = Target(Fixed(), unseen, original, torch.nonzero(~forget).flatten(), 1e-6, task)
    place = (unseen @ mapping + shift)[forget]
    assert target.loss(images[forget], place, labels[forget]).item() == pytest.approx(0.0, abs=1e-6)
    kept = original[~forget]
    spread = (kept - kept.mean(dim=0)).square().sum(dim=1).mean()
    away = torch.tensor([3.0, 0.0, 4.0])
    assert target.loss(images[forget], place + away, labels[forget]).item() == pytest.approx(
        25 / spread.item(), rel=1e-3
    )


def test_it_counts_what_it_reads() -> None:
    task = task_of()
    unseen_targets(Fixed(), task, epochs=2, batch_size=8, unseen_epochs=3)
    # Three times to begin with and once per epoch, and what the fresh network learns.
    assert task.image_passes == {"forget": 20 * 5, "retain": 20 * 5 + 20 * 3}


def test_it_keeps_to_the_contract() -> None:
    assert {result.status for result in check_unlearner(unseen_targets, {"unseen_epochs": 5})} == {"passed"}
