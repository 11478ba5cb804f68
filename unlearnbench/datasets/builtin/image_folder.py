"""A user's own images, in one folder for each class."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.datasets.add import TEST_SHARE, Offer, offers
from unlearnbench.datasets.class_folders import Found, class_images, merged, paired, share_for_test
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.datasets.storage import is_prepared, open_prepared
from unlearnbench.errors import DatasetError, did_you_mean

TEST_NAMES = ("test", "val", "validation")


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
    added = sources(folder)
    if source not in added:
        known = did_you_mean(source, added) if added else ""
        raise DatasetError(
            f"no images were added as {source!r}{known}\n"
            f"  Add them: unlearnbench data add image_folder PATH --as {source}"
        )
    return open_prepared(folder / "image_folder" / source)


def sources(folder: Path) -> list[str]:
    """Return the names under which class folders were added, sorted."""
    place = folder / "image_folder"
    return sorted(entry.name for entry in place.iterdir() if is_prepared(entry)) if place.is_dir() else []


def find(roots: Sequence[Path], *, test_share: float = TEST_SHARE) -> Found:
    """Find class folders below some folders.

    Args:
        roots: Folders that hold the class folders, or `train` and perhaps `test` (or `val`, `validation`) with them.
        test_share: Share of each class that becomes the test part if the folders have none.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    faults: list[str] = []
    roots = [_inner(root) for root in roots]
    trains = [root / "train" for root in roots if _is_part(root / "train")]
    tests = [root / name for root in roots for name in TEST_NAMES if _is_part(root / name)]
    train = merged([class_images(place, faults) for place in trains or roots])
    if trains and tests:
        test = merged([class_images(place, faults) for place in tests])
    else:
        train, test = share_for_test("image_folder", train, test_share, faults)
    return paired("image_folder", train, test, faults)


def _is_part(folder: Path) -> bool:
    """Return whether a folder holds class folders; the check is needed because a class could be called "train"."""
    return folder.is_dir() and any(entry.is_dir() for entry in folder.iterdir())


def _inner(root: Path) -> Path:
    """Return the only folder in `root` if it holds folders itself, as an archive often wraps everything in one."""
    inside = list(root.iterdir())
    alone = len(inside) == 1 and inside[0].is_dir() and inside[0].name != "train"
    return inside[0] if alone and any(entry.is_dir() for entry in inside[0].iterdir()) else root
