"""Data sets made of another's images: without its test images, for the search of options, or of some classes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.dataset import NOT_HERE, Dataset, DatasetInfo, Images, Part
from unlearnbench.datasets.split import limited_indices
from unlearnbench.errors import DatasetError, NotHereError, did_you_mean
from unlearnbench.registry.entry_points import find


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


def class_subset(folder: Path, *, of: str = "cifar100", classes: tuple[str, ...] = ()) -> Dataset:
    """Return some classes of another data set: networks are trained and tested on their images alone.

    Args:
        folder: The data folder, for the other data set's reader.
        of: Name of the other data set, which is read with its default options.
        classes: Names of the classes, two or more. They keep the order that they have in the other data set, whatever
            the order here.

    Raises:
        PluginError: If no data set has this name.
        NotHereError: If it was not added.
        DatasetError: If a class is not one of its classes or is named twice, or its files are damaged.

    Source: own. Images, split, ids and normalisation are those of the whole data set; superclasses keep their numbers.
    """
    if of == "class_subset":
        raise DatasetError("class_subset: 'class_subset' has no classes of its own; name the data set that has them")
    if len(classes) < 2 or len(set(classes)) < len(classes):
        twice = sorted({name for name in classes if classes.count(name) > 1})
        found = f"{twice[0]!r} is named twice" if twice else f"{len(classes)} classes are named"
        raise DatasetError(f"class_subset: {found}; name two or more classes of {of}, each once")
    try:
        whole: Dataset = find("datasets", of).load()(folder)
    except NotHereError as error:
        raise NotHereError(str(error), _stand_in(error.stand_in, classes, error)) from error
    names = whole.info.class_names
    for name in classes:
        if name not in names:
            raise DatasetError(f"class_subset: {of} has no class {name!r}{did_you_mean(name, names)}")
    kept = tuple(label for label, name in enumerate(names) if name in classes)
    info = _subset_info(whole.info, kept)
    return Dataset(info, train=lambda: _relabelled(whole.train(), kept), test=lambda: _relabelled(whole.test(), kept))


def _subset_info(info: DatasetInfo, kept: tuple[int, ...]) -> DatasetInfo:
    return replace(
        info,
        name=f"{info.name}-{len(kept)}-classes",
        class_names=tuple(info.class_names[label] for label in kept),
        train_counts=tuple(info.train_counts[label] for label in kept),
        test_counts=tuple(info.test_counts[label] for label in kept),
        superclasses=tuple(info.superclasses[label] for label in kept if info.superclasses),
    )


def _stand_in(whole: Dataset, classes: tuple[str, ...], error: DatasetError) -> Dataset:
    """Return what is known of the classes of a data set that is not here: their names and number of images."""
    if len(classes) > len(whole.info.class_names):
        raise DatasetError(
            f"class_subset: {len(classes)} classes are named, {whole.info.name} has {len(whole.info.class_names)}"
        ) from error
    info = replace(
        _subset_info(whole.info, tuple(range(len(classes)))), revision=NOT_HERE, class_names=tuple(sorted(classes))
    )
    return Dataset(info, whole.train, whole.test)


def _relabelled(part: Part, kept: tuple[int, ...]) -> Part:
    """Return the images of some classes, with labels from 0 on."""
    found = some_images(part, np.flatnonzero(np.isin(part.labels, kept)))
    return Part(found.images, np.searchsorted(np.array(kept), found.labels).astype(np.int64), found.ids)


def some_images(whole: Part, positions: NDArray[np.int64]) -> Part:
    """Return the images of a part at `positions`, (N,) int64."""
    return Part(SomeImages(whole.images, positions), whole.labels[positions], whole.ids[positions])


def _is_held_out(labels: NDArray[np.int64], every: int) -> NDArray[np.bool_]:
    found = np.zeros(len(labels), dtype=np.bool_)
    for label in np.unique(labels):
        found[np.flatnonzero(labels == label)[every - 1 :: every]] = True
    return found
