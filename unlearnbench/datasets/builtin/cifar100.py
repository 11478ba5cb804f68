"""CIFAR-100: the official `cifar-100-python` folder, or class folders of the same images."""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, FoundPart, class_images, merged, paired, raise_faults
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.errors import DatasetError

CLASSES, TRAIN_PER_CLASS, TEST_PER_CLASS = 100, 500, 100


@offers(Offer(lambda roots, options: find(roots), shape=(3, 32, 32)))
def cifar100(folder: Path) -> Dataset:
    """Return CIFAR-100: 100 classes in alphabetical order, 32x32 colour, 500 training and 100 test images each.

    Args:
        folder: The data folder; `unlearnbench data fetch cifar100` or `data add cifar100` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Learning Multiple Layers of Features from Tiny Images" (Krizhevsky, 2009), fine labels. The images of a
    class are in the order of their file names, so that every form of the data set has the same revision.
    """
    counts = CLASSES * TRAIN_PER_CLASS, CLASSES * TEST_PER_CLASS
    dataset = opened(folder / "cifar100", CLASSES, counts, (3, 32, 32))
    # A reduced data set has other classes, for which no superclasses are known.
    known = SUPERCLASSES if len(dataset.info.class_names) == CLASSES else ()
    return replace(dataset, info=replace(dataset.info, superclasses=known))


def find(
    roots: Sequence[Path],
    *,
    classes: int = CLASSES,
    train_per_class: int = TRAIN_PER_CLASS,
    test_per_class: int = TEST_PER_CLASS,
) -> Found:
    """Find CIFAR-100 below some folders and check that it is complete.

    Args:
        roots: Folders that hold the official files, or `train` and `test`, directly or one level down.
        classes: Number of classes that it has to have.
        train_per_class: Number of training images that each class has to have.
        test_per_class: Number of test images that each class has to have.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    places = [place for root in roots for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
    official = [place for place in places if (place / "meta").is_file() and (place / "train").is_file()]
    parts = [part for root in roots for part in with_parts(root)]
    found = _official(official[0]) if official else folders("cifar100", "meta, train, test", parts, roots)
    check_classes("cifar100", found, classes, train_per_class, test_per_class)
    return found


def check_classes(name: str, found: Found, classes: int, train_per_class: int, test_per_class: int) -> None:
    """Check that a data set has all of its classes, and every class all of its images.

    Raises:
        DatasetError: If not; all that is missing is named.
    """
    faults = [] if len(found.class_names) == classes else [f"{len(found.class_names)} classes where {classes} belong"]
    for part, what, each in ((found.train, "training", train_per_class), (found.test, "test", test_per_class)):
        counts = zip(found.class_names, found.counts(part), strict=True)
        faults += [f"class {label!r} has {n} {what} images where {each} belong" for label, n in counts if n != each]
    raise_faults(name, faults)


def with_parts(root: Path) -> list[Path]:
    """Return `root` if it holds `train` or `test`, and otherwise those of its folders that do.

    It is never both, because CIFAR-100 has a class called "train", so that `root/train` holds a `train` too.
    """
    places = [root] if _has_parts(root) else sorted(root.iterdir())
    return [place for place in places if _has_parts(place)]


def _has_parts(place: Path) -> bool:
    return (place / "train").is_dir() or (place / "test").is_dir()


def folders(name: str, files: str, places: Sequence[Path], roots: Sequence[Path]) -> Found:
    """Return the images of class folders.

    Args:
        name: Name of the data set.
        files: Names of its official files, for the message if there is nothing.
        places: Folders that hold `train` or `test`.
        roots: Folders that were given.

    Raises:
        DatasetError: If anything is missing or does not belong.
    """
    if not places:
        where = ", ".join(str(root) for root in roots)
        raise DatasetError(
            f"{name}: neither the official files {files} nor folders train/CLASS and test/CLASS in {where}"
        )
    faults: list[str] = []
    parts = {
        part: merged([class_images(place / part, faults) for place in places if (place / part).is_dir()])
        for part in ("train", "test")
    }
    return paired(name, parts["train"], parts["test"], faults)


class _ArraysOnly(pickle.Unpickler):
    """Reads pickles of arrays, text and numbers, and refuses anything else because it could run code."""

    def find_class(self, module: str, name: str) -> Any:
        allowed = {"_reconstruct", "ndarray", "dtype", "scalar", "encode"}
        if module.split(".")[0] not in ("numpy", "_codecs") or name not in allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        with warnings.catch_warnings():
            # The official files name numpy.core, which newer versions of numpy call numpy._core.
            warnings.simplefilter("ignore", DeprecationWarning)
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def unpickled(path: Path) -> dict[str, Any]:
    """Return the content of one of CIFAR's files.

    Raises:
        DatasetError: If the file is damaged, or holds more than arrays, text and numbers.
    """

    def load(file: BinaryIO) -> dict[str, Any]:
        content: dict[str, Any] = _ArraysOnly(file, encoding="latin1").load()
        return {text_of(key): value for key, value in content.items()}

    try:
        with path.open("rb") as file:
            return load(file)
    # A damaged pickle may raise almost any exception.
    except Exception as error:
        raise DatasetError(f"{path}: not one of CIFAR's files: {str(error) or type(error).__name__}") from error


def text_of(value: str | bytes) -> str:
    """Return a text that older files hold as bytes."""
    return value.decode() if isinstance(value, bytes) else value


def _official(place: Path) -> Found:
    names = tuple(text_of(name) for name in unpickled(place / "meta")["fine_label_names"])
    train, test = (official_part([place / part], len(names)) for part in ("train", "test"))
    return Found(names, train, test)


def official_part(paths: Sequence[Path], classes: int, labelled: str = "fine_labels") -> FoundPart:
    """Return the images of some of CIFAR's official files, those of a class in the order of their file names.

    Args:
        paths: The files.
        classes: K classes.
        labelled: Key of the labels.

    Raises:
        DatasetError: If a file is damaged.
    """
    parts = [_rows(path, classes, labelled) for path in paths]
    images = np.concatenate([part[0] for part in parts])
    labels, files = ([value for part in parts for value in part[column]] for column in (1, 2))
    order = sorted(range(len(labels)), key=lambda row: (labels[row], files[row]))
    return FoundPart(images[order], tuple(int(labels[row]) for row in order), tuple(range(len(order))))


def _rows(path: Path, classes: int, labelled: str) -> tuple[Any, list[int], list[str]]:
    """Return the images (N, 3, 32, 32), labels and file names of a file."""
    content = unpickled(path)
    try:
        images = np.asarray(content["data"], dtype=np.uint8).reshape(-1, 3, 32, 32)
        labels = [int(label) for label in content[labelled]]
        files = [text_of(name).rpartition(".")[0] for name in content["filenames"]]
    except (KeyError, ValueError) as error:
        raise DatasetError(f"{path}: not one of CIFAR's files: {error}") from error
    if not len(images) == len(labels) == len(files) or not all(0 <= label < classes for label in labels):
        raise DatasetError(f"{path}: images, labels and file names do not belong together")
    return images, labels, files


# Source: "Learning Multiple Layers of Features from Tiny Images" (Krizhevsky, 2009), coarse labels in their order.
GROUPS: dict[str, tuple[str, ...]] = {
    "aquatic_mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food_containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit_and_vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household_electrical_devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household_furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large_carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large_man-made_outdoor_things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large_natural_outdoor_scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large_omnivores_and_herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium_mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect_invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small_mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles_1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles_2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}

_GROUP_OF = {name: number for number, names in enumerate(GROUPS.values()) for name in names}
# The classes are in alphabetical order, so that this tuple is indexed by class.
SUPERCLASSES = tuple(_GROUP_OF[name] for name in sorted(_GROUP_OF))
