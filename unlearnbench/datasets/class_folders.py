"""Images found on disk in class folders and paired with their labels, all checked before any image is read."""

from __future__ import annotations

import hashlib
import os
import sys
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import DatasetError

# Operating systems write these files into any folder that a user opens; nobody means them as images.
LITTER = {"Thumbs.db", "desktop.ini", "__MACOSX", "__pycache__"}
SHOWN_FAULTS = 20


class ImageFile(Protocol):
    """An encoded image: a file, or what can be read like one."""

    @property
    def name(self) -> str:
        """Its name in the folder or file that holds it."""

    @property
    def parent(self) -> Path:
        """The folder or file that holds it."""

    def read_bytes(self) -> bytes:
        """Return its content."""


File = TypeVar("File", bound=ImageFile)


@dataclass(frozen=True)
class FoundPart:
    """The training or the test images of a data set, before they are read.

    Attributes:
        images: N files, or an array (N, C, H, W) uint8 of images already decoded.
        labels: N class indices.
        ids: N numbers, unique in the part and the same on every machine.
    """

    images: Sequence[ImageFile] | NDArray[np.uint8]
    labels: tuple[int, ...]
    ids: tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """A data set as it was found on disk.

    Attributes:
        class_names: K names in the order of the class indices.
        train: The training part.
        test: The test part.
        notes: What the user should know about how the folders were read, a line each.
        origin: Repository and commit that the files come from; "" if they are the user's own.
    """

    class_names: tuple[str, ...]
    train: FoundPart
    test: FoundPart
    notes: tuple[str, ...] = ()
    origin: str = ""

    def counts(self, part: FoundPart) -> tuple[int, ...]:
        """Return how many images each class has in a part."""
        counted = Counter(part.labels)
        return tuple(counted[label] for label in range(len(self.class_names)))


def raise_faults(name: str, faults: Sequence[str]) -> None:
    """Raise all faults of a data set at once, with the first of them spelled out.

    Raises:
        DatasetError: If there is any fault.
    """
    if faults:
        rest = len(faults) - SHOWN_FAULTS
        lines = [*faults[:SHOWN_FAULTS], *([f"and {rest} more"] if rest > 0 else [])]
        raise DatasetError("\n  ".join([f"{name}: not added", *lines]))


def class_images(folder: Path, faults: list[str]) -> dict[str, list[Path]]:
    """Return the files of each class folder in `folder`, with folders and files in alphabetical order.

    Args:
        folder: Folder with one folder for each class, which in turn hold only files.
        faults: List that everything wrong is appended to.
    """
    classes: dict[str, list[Path]] = {}
    for entry in _with_readable_names(folder, faults):
        if not entry.is_dir():
            faults.append(f"{entry}: a file beside the class folders; move it into one, or away")
            continue
        files = list(_with_readable_names(entry, faults))
        faults.extend(f"{file}: a folder within a class; a class holds files only" for file in files if file.is_dir())
        if not files:
            faults.append(f"{entry}: class {entry.name!r} has no image")
        # Operating systems write an accented letter as one character or as two; it is the same class.
        name = unicodedata.normalize("NFC", entry.name)
        classes.setdefault(name, []).extend(file for file in files if not file.is_dir())
    return classes


def _with_readable_names(folder: Path, faults: list[str]) -> Iterator[Path]:
    """Yield what a folder holds in alphabetical order, without litter and without names that are no text."""
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if is_litter(entry):
            continue
        try:
            entry.name.encode()
        except UnicodeEncodeError:
            shown = os.fsencode(entry).decode(errors="backslashreplace")
            faults.append(f"{shown}: its name is not {sys.getfilesystemencoding()} text; rename it")
        else:
            yield entry


def file_below(name: str, roots: Sequence[Path], *wanted: str) -> Path:
    """Return the first file below some folders that has one of the wanted names, or ends in one of the wanted paths.

    Raises:
        DatasetError: If there is none.
    """
    for root in roots:
        for text in wanted:
            found = sorted(path for path in root.rglob(text) if path.is_file())
            if found:
                return found[0]
    raise DatasetError(f"{name}: no {' or '.join(wanted)} in {', '.join(map(str, roots))}")


def is_litter(entry: Path) -> bool:
    """Return whether nobody means a file or folder as data: hidden ones, and those that systems write."""
    return entry.name in LITTER or entry.name.startswith(".")


def alike(class_names: Sequence[str]) -> Iterator[str]:
    """Yield a line for each pair of class names that differ only in the case of letters."""
    by_fold: dict[str, str] = {}
    for name in class_names:
        other = by_fold.setdefault(name.casefold(), name)
        if other != name:
            yield f"the classes {other!r} and {name!r} differ only in case, and count as two"


def merged(trees: Sequence[dict[str, list[Path]]]) -> dict[str, list[Path]]:
    """Merge the class folders of several places into one mapping in alphabetical order."""
    names = sorted({name for tree in trees for name in tree})
    return {
        name: sorted((file for tree in trees for file in tree.get(name, [])), key=lambda file: file.name)
        for name in names
    }


def paired(name: str, train: dict[str, list[Path]], test: dict[str, list[Path]], faults: Sequence[str]) -> Found:
    """Return the training and test images of the same classes, labelled in alphabetical order.

    Args:
        name: Name of the data set.
        train: Training files of each class.
        test: Test files of each class.
        faults: Faults that were found before.

    Raises:
        DatasetError: If `faults` is not empty, or a class is missing from one of the parts.
    """
    found = list(faults)
    found += [f"class {key!r} has no folder in the test part" for key in train if key not in test]
    found += [f"class {key!r} has no folder in the training part" for key in test if key not in train]
    if not train and not found:
        found.append("no class folder was found")
    raise_faults(name, found)
    return Found(tuple(train), _part(train), _part(test), tuple(alike(tuple(train))))


def _part(classes: dict[str, list[Path]]) -> FoundPart:
    files = [file for members in classes.values() for file in members]
    labels = [label for label, members in enumerate(classes.values()) for _ in members]
    return FoundPart(files, tuple(labels), tuple(range(len(files))))


def share_for_test(
    name: str, classes: dict[str, list[File]], share: float, faults: list[str]
) -> tuple[dict[str, list[File]], dict[str, list[File]]]:
    """Split each class into training and test images in the same way on every machine.

    Files are ordered by the hash of class and file name, so that consecutive frames of a film do not all fall into
    one part because of their numbers. The first `share` of them, at least one, are test images.

    Args:
        name: Name of the data set.
        classes: Files of each class.
        share: Share of test images, in (0, 1).
        faults: List that each class too small to be split is appended to.
    """
    train: dict[str, list[File]] = {}
    test: dict[str, list[File]] = {}
    for label, files in classes.items():
        order = sorted(files, key=lambda file: hashlib.sha256(f"{file.parent.name}/{file.name}".encode()).digest())
        tested = max(1, round(share * len(order)))
        if len(files) == 1:
            faults.append(f"class {label!r} of {name} has 1 image; without a test part it needs 2 or more")
        elif files and tested >= len(order):
            faults.append(
                f"class {label!r} of {name}: a test part of {share:g} leaves none of its {len(files)} images for "
                "training; give a smaller --test-share"
            )
        chosen = set(order[:tested])
        train[label] = [file for file in files if file not in chosen]
        test[label] = [file for file in files if file in chosen]
    return train, test


def check_counts(name: str, found: Found, classes: int, train: int, test: int) -> None:
    """Check that a well-known data set is complete.

    Args:
        name: Name of the data set.
        found: Images that were found.
        classes: Expected number of classes.
        train: Expected number of training images in total.
        test: Expected number of test images in total.

    Raises:
        DatasetError: If a number differs; every such number is named.
    """
    numbers = {
        "classes": (len(found.class_names), classes),
        "training images": (len(found.train.labels), train),
        "test images": (len(found.test.labels), test),
    }
    faults = [f"{is_:,} {what} where {be:,} belong" for what, (is_, be) in numbers.items() if is_ != be]
    raise_faults(name, faults)
