"""Tiny-ImageNet, from the folder `tiny-imagenet-200` as it is distributed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, check_counts, is_litter, paired, raise_faults
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.errors import DatasetError

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 200, 100_000, 10_000
SIDE = 64
ANNOTATIONS = "val_annotations.txt"


@offers(Offer(lambda roots, options: find(roots), shape=(3, SIDE, SIDE)))
def tiny_imagenet(folder: Path) -> Dataset:
    """Return Tiny-ImageNet: 200 classes in the order of their WordNet ids, 64x64, 500 training and 50 test images each.

    Args:
        folder: The data folder; `unlearnbench data add tiny_imagenet` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Tiny ImageNet Visual Recognition Challenge" (Le and Yang, 2015). Its validation images are the test part,
    since its test images have no labels.
    """
    return opened(folder / "tiny_imagenet", CLASSES, (TRAIN_IMAGES, TEST_IMAGES), (3, SIDE, SIDE))


def find(roots: Sequence[Path], *, classes: int = CLASSES, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> Found:
    """Find Tiny-ImageNet below some folders and check that it is complete.

    Args:
        roots: Folders, one of which holds `train/WNID/images` and `val` with its annotations, directly or one level
            down.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have.
        test: Number of validation images that it has to have.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    places = [place for root in roots for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
    place = next((place for place in places if (place / "val" / ANNOTATIONS).is_file()), None)
    if place is None:
        where = ", ".join(str(root) for root in roots)
        raise DatasetError(f"tiny_imagenet: no val/{ANNOTATIONS} in {where}; give the folder tiny-imagenet-200")
    folders = sorted(entry for entry in (place / "train").glob("*") if entry.is_dir() and not is_litter(entry))
    training = {entry.name: sorted((entry / "images").glob("*")) for entry in folders}
    faults: list[str] = []
    found = paired("tiny_imagenet", training, _validation(place / "val", set(training), faults), faults)
    check_counts("tiny_imagenet", found, classes, train, test)
    return found


def _validation(place: Path, known: set[str], faults: list[str]) -> dict[str, list[Path]]:
    """Return the validation images of each class, which a list of file names and WordNet ids tells."""
    found: dict[str, list[Path]] = {name: [] for name in sorted(known)}
    for number, line in enumerate((place / ANNOTATIONS).read_text(encoding="utf-8").splitlines(), start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        file = place / "images" / name
        if wnid not in known:
            faults.append(f"{place / ANNOTATIONS}:{number}: {wnid!r} is no folder of the training part")
        elif not file.is_file():
            faults.append(f"{file}: missing")
        else:
            found[wnid].append(file)
    raise_faults("tiny_imagenet", faults)
    return {wnid: sorted(files) for wnid, files in found.items()}
