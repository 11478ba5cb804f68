"""A user's own images, in one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from unlearnbench.datasets.add import TEST_SHARE, Offer, offers
from unlearnbench.datasets.catalog import added
from unlearnbench.datasets.class_folders import (
    Found,
    class_images,
    is_litter,
    merged,
    paired,
    raise_faults,
    share_for_test,
)
from unlearnbench.datasets.dataset import Dataset

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "val", "valid", "validation", "eval")


@offers(Offer(lambda roots, options: find(roots, test_share=options.test_share), named=True))
def image_folder(folder: Path, *, source: str = "default") -> Dataset:
    """Return class folders that were added with `unlearnbench data add image_folder PATH --as NAME`.

    Args:
        folder: The data folder.
        source: The NAME under which they were added.

    Raises:
        DatasetError: If nothing was added under this name, or its files are damaged.

    Source: own. Classes are in alphabetical order. Without a test part, every fifth image of each class becomes a
    test image, chosen by the hash of its name.
    """
    return added(folder, "image_folder", source)


def find(roots: Sequence[Path], *, test_share: float = TEST_SHARE) -> Found:
    """Find class folders below some folders.

    Args:
        roots: Folders that hold the class folders, or `train` and perhaps `test` (or `val`, `valid`, ...) with them.
        test_share: Share of each class that becomes the test part if the folders have none.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    faults: list[str] = []
    roots = [_inner(root) for root in roots]
    parts = {root: _parts(root, faults) for root in roots}
    raise_faults("image_folder", faults)
    trains = [part for found in parts.values() for part in found if part.name in TRAIN_NAMES]
    tests = [part for found in parts.values() for part in found if part.name in TEST_NAMES]
    train = merged([class_images(place, faults) for place in trains or roots])
    if trains and tests:
        test = merged([class_images(place, faults) for place in tests])
    else:
        train, test = share_for_test("image_folder", train, test_share, faults)
    found = paired("image_folder", train, test, faults)
    names = sorted({part.name for part in tests})
    joined = [f"the test part is {' and '.join(names)} together"] if len(names) > 1 else []
    return replace(found, notes=(*joined, *found.notes))


def _parts(root: Path, faults: list[str]) -> list[Path]:
    """Return the training and test folders in a folder, or nothing if it holds the classes themselves.

    Args:
        root: Folder that was given, or the only one in it.
        faults: List that each folder beside the parts is appended to, since it would not be read.
    """
    inside = sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_litter(entry))
    trains = [entry for entry in inside if entry.name in TRAIN_NAMES and _holds_folders(entry)]
    # A class could be called "test", as long as nothing is called "train" and holds classes.
    found = trains or [entry for entry in inside if entry.name in TEST_NAMES and _holds_folders(entry)]
    if not found:
        return []
    usual = f"{', '.join(TRAIN_NAMES)}; {', '.join(TEST_NAMES)}"
    for entry in inside:
        if entry.name not in (*TRAIN_NAMES, *TEST_NAMES):
            faults.append(f"{entry}: neither a training nor a test part ({usual}); rename it or move it away")
        elif not _holds_folders(entry):
            faults.append(f"{entry}: {_flat(entry)}")
    return [entry for entry in inside if entry.name in (*TRAIN_NAMES, *TEST_NAMES)]


def _flat(part: Path) -> str:
    """Say what to do with a part that holds images without class folders."""
    if any(part.glob("ILSVRC2012_val_*")):
        return "holds ImageNet's images as distributed; sort them into folders by their WordNet ids first"
    return f"holds no class folders; sort its images into {part.name}/CLASS, or move it away"


def _holds_folders(folder: Path) -> bool:
    """Return whether a folder holds class folders; the check is needed because a class could be called "train"."""
    return any(entry.is_dir() and not is_litter(entry) for entry in folder.iterdir())


def _inner(root: Path) -> Path:
    """Return the only folder in `root` if it holds folders itself, as an archive often wraps everything in one."""
    inside = [entry for entry in root.iterdir() if not is_litter(entry)]
    alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name not in TRAIN_NAMES
    return inside[0] if alone and _holds_folders(inside[0]) else root
