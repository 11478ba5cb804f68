"""CIFAR-10: the official `cifar-10-batches-py` folder, or class folders of the same images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.builtin.cifar100 import (
    check_classes,
    folders,
    official_part,
    text_of,
    unpickled,
    with_parts,
)
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found
from unlearnbench.datasets.dataset import Dataset

CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS = 10, 5_000, 1_000
META, TRAIN, TEST = "batches.meta", "data_batch_*", "test_batch"


@offers(Offer(lambda roots, options: find(roots), shape=(3, 32, 32)))
def cifar10(folder: Path) -> Dataset:
    """Return CIFAR-10: 10 classes in alphabetical order, 32x32 colour, 5,000 training and 1,000 test images each.

    Args:
        folder: The data folder; `unlearnbench data fetch cifar10` or `data add cifar10` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Learning Multiple Layers of Features from Tiny Images" (Krizhevsky, 2009). The images of a class are in the
    order of their file names, so that every form of the data set has the same revision.
    """
    counts = CLASSES * TRAIN_PER_CLASS, CLASSES * TEST_PER_CLASS
    return opened(folder / "cifar10", CLASSES, counts, (3, 32, 32))


def find(
    roots: Sequence[Path],
    *,
    classes: int = CLASSES,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
) -> Found:
    """Find CIFAR-10 below some folders and check that it is complete.

    Args:
        roots: Folders that hold the official files, or `train` and `test`, directly or one level down.
        classes: Number of classes that it has to have.
        train_per_class: Number of training images that each class has to have.
        test_per_class: Number of test images that each class has to have.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    places = [place for root in roots for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
    official = [place for place in places if (place / META).is_file() and (place / TEST).is_file()]
    if official:
        place = official[0]
        names = tuple(text_of(name) for name in unpickled(place / META)["label_names"])
        parts = (sorted(place.glob(TRAIN)), [place / TEST])
        train, test = (official_part(paths, len(names), "labels") for paths in parts)
        found = Found(names, train, test)
    else:
        inside = [part for root in roots for part in with_parts(root)]
        found = folders("cifar10", f"{META}, {TRAIN}, {TEST}", inside, roots)
    check_classes("cifar10", found, classes, train_per_class, test_per_class)
    return found
