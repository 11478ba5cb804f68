"""A data set whose test images are replaced by some training images, for the search of options."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.dataset import Dataset, Images, Part


@dataclass(frozen=True)
class SomeImages:
    """Some of the images of a part.

    Attributes:
        images: All images of the part.
        positions: (N,) int64, positions of the images that are included.
    """

    images: Images
    positions: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        return self.images.shape

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.positions)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at `indices`, shape (B, C, H, W)."""
        return self.images.read(self.positions[indices])


def without_test_images(dataset: Dataset, every: int) -> Dataset:
    """Return a data set that takes every `every`-th training image of each class, in their order, as its test image.

    The remaining training images stay training images. The test part of `dataset` is never read.
    """
    held = tuple(count // every for count in dataset.info.train_counts)
    rest = tuple(count - out for count, out in zip(dataset.info.train_counts, held, strict=True))
    info = replace(
        dataset.info, revision=f"{dataset.info.revision}-held-out-{every}", train_counts=rest, test_counts=held
    )

    def part(*, out: bool) -> Part:
        whole = dataset.train()
        positions = np.flatnonzero(_is_held_out(whole.labels, every) == out).astype(np.int64)
        return Part(SomeImages(whole.images, positions), whole.labels[positions], whole.ids[positions])

    return Dataset(info, train=lambda: part(out=False), test=lambda: part(out=True), held_out_every=every)


def _is_held_out(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    found = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        found[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    return found
