"""A data set whose test images are replaced by training images, for the search of options."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.dataset import Dataset, Images, Part
from unlearnbench.datasets.split import limited_indices


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
        return some_images(whole, np.flatnonzero(_is_held_out(whole.labels, every) == out))

    made_by = partial(without_test_images, every=every)
    return Dataset(info, train=lambda: part(out=False), test=lambda: part(out=True), made_by=made_by)


def on_limited_images(dataset: Dataset, counts: tuple[int, ...], given: tuple[int, ...], seed: int) -> Dataset:
    """Return a data set whose test images are those limited images of a seed that a method is not given.

    The training images stay, because the original has learned from all of them; nothing but the limited images needs
    to be looked at in order to judge a method. The test part of `dataset` is never read.

    Args:
        dataset: The data set.
        counts: K numbers of limited images.
        given: K numbers of those that the method gets; the limited images of these counts are the first of the others.
        seed: Seed that draws them.
    """
    held = tuple(count - kept for count, kept in zip(counts, given, strict=True))
    chosen = hashlib.sha256(repr((counts, given)).encode()).hexdigest()[:8]
    info = replace(dataset.info, revision=f"{dataset.info.revision}-limited-{seed}-{chosen}", test_counts=held)

    def test() -> Part:
        whole = dataset.train()
        limited, first = (limited_indices(whole.labels, wanted, seed) for wanted in (counts, given))
        return some_images(whole, np.setdiff1d(limited, first))

    made_by = partial(on_limited_images, counts=counts, given=given, seed=seed)
    return Dataset(info, train=dataset.train, test=test, made_by=made_by)


def some_images(whole: Part, positions: NDArray[np.int64]) -> Part:
    """Return the images of a part at `positions`, (N,) int64."""
    return Part(SomeImages(whole.images, positions), whole.labels[positions], whole.ids[positions])


def _is_held_out(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    found = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        found[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    return found
