"""A data set's images on the device, and the copy of the limited data that an unlearner may see."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unlearnbench.datasets.dataset import Dataset, Images, Part
from unlearnbench.datasets.split import limited_indices
from unlearnbench.machine import available_memory
from unlearnbench.models.batches import Batches, image_tensor, read_by_parts
from unlearnbench.models.federation.federation import Federation
from unlearnbench.models.federation.shares import party_counts, party_images
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import augmentation

SHARE_OF_MEMORY = 0.5
# The limited data as they are handed to the process of a method.
LIMITED_IMAGES, LIMITED_LABELS = "limited-images.npy", "limited-labels.npy"


@dataclass(frozen=True)
class LoadedData:
    """Training and test images, read when they are first used.

    Attributes:
        dataset: Data set to read.
        recipe: Recipe that gives the augmentation.
        device: Device that the images go to.
        federation: Parties that hold the training images between them; None if these lie in one place.
    """

    dataset: Dataset
    recipe: TrainingRecipe
    device: torch.device
    federation: Federation | None = None

    @cached_property
    def train_part(self) -> Part:
        """All training images, as stored."""
        return self.dataset.train()

    @cached_property
    def test_part(self) -> Part:
        """The test images, as stored."""
        return self.dataset.test()

    @cached_property
    def train(self) -> Batches:
        """All training images."""
        return self._batches(self.train_part, np.arange(len(self.train_part.labels)))

    @cached_property
    def test(self) -> Batches:
        """The test images."""
        return self._batches(self.test_part, np.arange(len(self.test_part.labels)))

    def limited_positions(self, counts: tuple[int, ...], seed: int) -> NDArray[np.int64]:
        """Return the positions of a seed's limited images among the training images.

        Args:
            counts: K numbers of limited images; where a party unlearns, its own share decides.
            seed: Seed of the run.
        """
        if self.federation is not None and self.federation.party is not None:
            return self.party_positions(seed)[self.federation.party]
        return limited_indices(self.train_part.labels, counts, seed)

    def party_positions(self, seed: int) -> list[NDArray[np.int64]]:
        """Return the positions of each party's images among the training images; none without a federation."""
        if self.federation is None:
            return []
        counts = party_counts(self.federation, self.dataset.info.train_counts, seed)
        return party_images(self.train_part.labels, counts, seed)

    def write_limited(self, folder: Path, counts: tuple[int, ...], seed: int) -> None:
        """Write a seed's limited images, (M, C, H, W) uint8, and their labels, (M,) int64, for `limited_batches`.

        Memory does not grow with their number.
        """
        part, positions = self.train_part, self.limited_positions(counts, seed)
        with (folder / LIMITED_IMAGES).open("wb") as file:
            shape = (len(positions), *part.images.shape)
            header = {"descr": "|u1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for images in read_by_parts(part.images, positions):
                file.write(np.ascontiguousarray(images).data)
        np.save(folder / LIMITED_LABELS, part.labels[positions])

    def limited(self, counts: tuple[int, ...], seed: int) -> Batches:
        """Return a copy of a seed's limited images, held in memory so that no other image can be reached."""
        part, positions = self.train_part, self.limited_positions(counts, seed)
        images = image_tensor(part.images, positions, torch.device("cpu"))
        labels = torch.from_numpy(part.labels[positions])
        return _small_batches(images, labels, self.mean, self.std, self.recipe, self.device)

    @property
    def mean(self) -> tuple[float, ...]:
        """Value that is subtracted from each channel, in [0, 1]."""
        return self.recipe.mean or self.dataset.info.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Value that each channel is divided by, on the same scale."""
        return self.recipe.std or self.dataset.info.std

    def _batches(self, part: Part, positions: NDArray[np.int64]) -> Batches:
        size = 2 * len(positions) * math.prod(part.images.shape)  # Padding makes a second copy.
        images: Tensor | Images
        if size <= free_memory(self.device):
            images = image_tensor(part.images, positions, self.device)
        elif size <= free_memory(torch.device("cpu")):
            images = image_tensor(part.images, positions, torch.device("cpu"))
        else:
            images = part.images
        labels = torch.from_numpy(part.labels[positions]).to(self.device)
        return Batches(images, labels, self.mean, self.std, augmentation(self.recipe))


def limited_batches(
    folder: Path, mean: Sequence[float], std: Sequence[float], recipe: TrainingRecipe, device: torch.device
) -> Batches:
    """Return what `LoadedData.write_limited` has written as batches on a device, or of the file if they do not fit.

    On a CPU the images are mapped from the file, which the system can drop from memory; what a method changes in them
    is its own.
    """
    images = torch.from_numpy(np.load(folder / LIMITED_IMAGES, mmap_mode="c"))
    labels = torch.from_numpy(np.load(folder / LIMITED_LABELS))
    return _small_batches(images, labels, mean, std, recipe, device)


def _small_batches(
    images: Tensor,
    labels: Tensor,
    mean: Sequence[float],
    std: Sequence[float],
    recipe: TrainingRecipe,
    device: torch.device,
) -> Batches:
    # Padding makes a second copy.
    if 2 * images.numel() <= free_memory(device):
        images = images.to(device)
    return Batches(images, labels.to(device), mean, std, augmentation(recipe))


def free_memory(device: torch.device) -> int:
    """Return how many bytes images may take on a device; the rest is left to networks and their activations."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0] * SHARE_OF_MEMORY)
    return int(available_memory() * SHARE_OF_MEMORY)
