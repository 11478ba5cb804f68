"""ImageNet-1k (ILSVRC 2012), from the usual layout of one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, check_counts, class_images, merged, paired
from unlearnbench.datasets.dataset import Dataset

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 1_000, 1_281_167, 50_000
SIDE = 256


@offers(Offer(lambda roots, options: find(roots), side=SIDE, packed=False))
def imagenet1k(folder: Path) -> Dataset:
    """Return ImageNet-1k: 1,000 classes in the order of their WordNet ids, 1,281,167 and 50,000 images.

    Args:
        folder: The data folder; `unlearnbench data add imagenet1k` puts an index there. The images stay
            where they are and are decoded when they are read.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "ImageNet Large Scale Visual Recognition Challenge" (Russakovsky et al., 2015); its validation images
    are the test part. The shorter side is resized to 256 and the image cropped to the square in the centre, from
    which the recipe cuts 224x224. This is torchvision's evaluation, and close to the random crop of the paper's
    training.
    """
    place = folder / "imagenet1k"
    message = (
        f"imagenet1k is not on this machine: nothing at {place} (about 150 GB, which stay in a folder of yours)\n"
        "  It may not be passed on: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org,\n"
        "  sort them into train/<wnid>/ and val/<wnid>/, then: unlearnbench data add imagenet1k PATH"
    )
    return opened(place, CLASSES, (TRAIN_IMAGES, TEST_IMAGES), (3, SIDE, SIDE), message)


def find(roots: Sequence[Path], *, classes: int = CLASSES, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> Found:
    """Find ImageNet-1k below some folders and check that it is complete.

    Args:
        roots: Folders that hold `train`, `val` or both, with one folder for each WordNet id.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have.
        test: Number of validation images that it has to have.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    faults: list[str] = []
    for part in ("train", "val"):
        if not any((root / part).is_dir() for root in roots):
            where = ", ".join(str(root) for root in roots)
            faults.append(f"no folder {part} in {where}; it holds one folder for each WordNet id")
    parts = {
        part: merged([class_images(root / part, faults) for root in roots if (root / part).is_dir()])
        for part in ("train", "val")
    }
    found = paired("imagenet1k", parts["train"], parts["val"], faults)
    check_counts("imagenet1k", found, classes, train, test)
    return found
