"""What the methods say that they will read is what they read, so that the time left is told rightly."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.unlearners.probe_push import probe_push
from unlearnbench_lab.unlearners.redrawn_layers import redrawn_layers
from unlearnbench_lab.unlearners.steered_push import steered_push
from unlearnbench_lab.unlearners.unseen_targets import unseen_targets

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (probe_push, {"epochs": 3}),
        (probe_push, {"epochs": 3, "mixing": 1.0}),
        (steered_push, {"epochs": 3, "unseen_epochs": 4}),
        (steered_push, {"epochs": 3, "unseen_epochs": 4, "mixing": 1.0, "trained": "all", "pushed": "every_stage"}),
        (unseen_targets, {"epochs": 3, "unseen_epochs": 4}),
        (redrawn_layers, {"epochs": 3}),
        (redrawn_layers, {"epochs": 3, "mixing": 1.0}),
    ],
)
def test_a_method_reads_what_it_says(method: Callable[..., nn.Module], options: dict[str, Any]) -> None:
    read, promised = 0, [0]

    def advance(images: int) -> None:
        nonlocal read
        read += images

    pixels = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Batches(pixels, torch.arange(40) % 4, [0.5], [0.3], Augmentation())
    task = UnlearningTask(
        data,
        (1, 3),
        4,
        RECIPE,
        0,
        network,
        advance=advance,
        expect=lambda images: promised.append(read + images),
    )
    method(network(), task, batch_size=8, **options)
    assert read == promised[-1]
