"""Speed of training: the harness against a bare loop over tensors on the device, and against the textbook loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset
from torchvision import transforms

from tests.benchmarks.problem import RECIPE, data, device, network, wait
from tests.benchmarks.ratio import Ratio, measure
from unlearnbench.models.training import ReferenceTraining, autocast, recipe_optimizer, resolve_precision

IMAGES = 64 * 60


def harness() -> ReferenceTraining:
    """Return a training by the harness on the first images."""
    positions = torch.arange(IMAGES, device=device())
    return ReferenceTraining(network(), data().train, positions, RECIPE, 0, "original")


def run_harness(training: ReferenceTraining) -> None:
    """Train one epoch."""
    training.epoch = 0
    training._train_epoch()
    wait()


def steps(model: nn.Module, batches: Iterator[tuple[Tensor, Tensor]], precision: str) -> None:
    """Take the steps of the textbook loop."""
    model.train()
    optimizer = recipe_optimizer(model, RECIPE)
    for images, labels in batches:
        with autocast(precision, device()):
            logits = model(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    wait()


class PilImages(Dataset[Any]):
    """CIFAR-100 as torchvision gives it: one PIL image after another, through a chain of transforms."""

    def __init__(self) -> None:
        part = data().train_part
        self.images = part.images.read(np.arange(IMAGES)).transpose(0, 2, 3, 1)
        self.labels = part.labels[:IMAGES]
        info = data().dataset.info
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(info.mean, info.std),
            ]
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        """Return one image, transformed, and its label."""
        return self.transform(Image.fromarray(self.images[index])), int(self.labels[index])


def bare() -> Ratio:
    """Measure the harness against a bare loop with the same network and precision."""
    training, model = harness(), network()
    precision = resolve_precision(RECIPE.precision, device())
    images = torch.randn(64, 3, 32, 32, device=device())
    labels = torch.randint(100, (64,), device=device())

    def loop() -> None:
        steps(model, iter([(images, labels)] * (IMAGES // 64)), precision)

    return measure(f"training, harness / bare {precision} loop", 0.95, IMAGES, lambda: run_harness(training), loop)


def textbook() -> Ratio:
    """Measure the harness against torchvision, PIL and a DataLoader with two workers, in float32."""
    training, model = harness(), network()
    loader = DataLoader(
        Subset(PilImages(), range(IMAGES)), 64, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True
    )

    # The textbook loop does not use memory formats.
    model.to(memory_format=torch.contiguous_format)

    def loop() -> None:
        steps(model, ((images.to(device()), labels.to(device())) for images, labels in loader), "float32")

    target = 5.0 if device().type == "cuda" else 1.7
    return measure("training, harness / textbook loop", target, IMAGES, lambda: run_harness(training), loop)
