"""Adding a data set: a user's files become a prepared folder, either completely or not at all."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from unlearnbench.datasets.class_folders import Found, raise_faults
from unlearnbench.datasets.dataset import DatasetInfo, data_folder
from unlearnbench.datasets.download import is_archive, unpacked
from unlearnbench.datasets.images import image_size
from unlearnbench.datasets.storage import Advance, image_fault, index, open_prepared, pack
from unlearnbench.errors import DatasetError, did_you_mean, os_reason
from unlearnbench.registry.entry_points import find, names

Reader = TypeVar("Reader", bound=Callable[..., Any])

# A larger image folder is not packed; its images stay where they are.
PACK_LIMIT_BYTES = 16 * 2**30
LARGEST_KEPT_SIDE = 256
TEST_SHARE = 0.2


@dataclass(frozen=True)
class FolderOptions:
    """What a user can choose for image folders.

    Attributes:
        name: Name under which the images are added.
        side: Side of the square that each image becomes; None leaves the choice to the size of the images.
        test_share: Share of each class that becomes the test part if the folders have none.
    """

    name: str = "default"
    side: int | None = None
    test_share: float = TEST_SHARE


@dataclass(frozen=True)
class Listener:
    """Callbacks that follow the progress of adding a data set.

    Attributes:
        say: Callback that receives a line of text.
        start: Callback that receives the number of images before the first is read.
        advance: Callback that receives a number of images once they are read.
    """

    say: Callable[[str], None] = lambda message: None
    start: Callable[[int], None] = lambda images: None
    advance: Advance = lambda images: None


SILENT = Listener()
OFFER = "__unlearnbench_offer__"


@dataclass(frozen=True)
class Offer:
    """How a user's files become what a reader of data sets reads; the reader declares it with `offers`.

    Attributes:
        find: Function that finds the images below some folders, or raises `DatasetError` with all that is wrong.
        side: Side of the square that every image becomes; None keeps the size of the images.
        shape: Shape that all images have already; None if `side` or the images decide it.
        packed: Whether the images become one array. If not, they stay where they are, and the user has to unpack an
            archive first.
        named: Whether there can be several such data sets, each added under a name of its own.
    """

    find: Callable[[Sequence[Path], FolderOptions], Found]
    side: int | None = None
    shape: tuple[int, int, int] | None = None
    packed: bool = True
    named: bool = False


def offers(offer: Offer) -> Callable[[Reader], Reader]:
    """Return a decorator for a reader of data sets whose files `unlearnbench data add` can prepare."""

    def mark(reader: Reader) -> Reader:
        setattr(reader, OFFER, offer)
        return reader

    return mark


def offer_of(name: str) -> Offer | None:
    """Return how a data set is added, or None if its reader offers no way.

    Raises:
        PluginError: If no such data set is installed, or its reader cannot be imported.
    """
    offer: Offer | None = getattr(find("datasets", name).load(), OFFER, None)
    return offer


def add(
    name: str, paths: Sequence[Path], options: FolderOptions = FolderOptions(), listener: Listener = SILENT
) -> DatasetInfo:
    """Prepare a data set from folders or archives and return its facts.

    The data set is built under a temporary name and renamed once it is complete. It then replaces one of the same
    name, and the listener is told. Whatever an interrupted call left behind is removed by the next one.

    Args:
        name: Name of a data set whose reader offers a way to add it.
        paths: Folders or archives that hold the images.
        options: Choices for image folders.
        listener: Callbacks that follow the progress.

    Raises:
        DatasetError: If anything is wrong with the images, all of which is named, or the disk is full.
    """
    offer = offer_of(name) if name in names("datasets") else None
    if offer is None:
        addable = [known for known in names("datasets") if offer_of(known)]
        raise DatasetError(f"{name!r} cannot be added{did_you_mean(name, addable)}")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", options.name):
        raise DatasetError(f"--as {options.name}: a name is letters, digits, dots, dashes and underscores")
    target = data_folder() / name / options.name if offer.named else data_folder() / name
    with _scratch(target) as scratch:
        new = scratch / "new"
        new.mkdir()
        try:
            _prepare(name, offer, [path.resolve() for path in paths], new, scratch, options, listener)
        except OSError as error:
            raise DatasetError(f"{name}: cannot be written to {new.parent}: {os_reason(error)}") from error
        before = _revision(target)
        if target.exists():
            target.rename(scratch / "replaced")
        new.rename(target)
    info = open_prepared(target).info
    if before not in (None, info.revision):
        listener.say(f"{info.name}: replaced revision {before} by {info.revision}")
    return info


def _revision(folder: Path) -> str | None:
    """Return the revision of the data set in a folder, or None if no data set there can be opened."""
    try:
        return open_prepared(folder).info.revision
    except DatasetError:
        return None


@contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """Give a temporary folder beside `target` to one process at a time, and remove it afterwards."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(target.with_name(f".{target.name}.lock"))
        with lock:
            for left_over in target.parent.glob(f".{target.name}.adding-*"):
                shutil.rmtree(left_over)
            scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.adding-", dir=target.parent))
    except OSError as error:
        raise DatasetError(
            f"{target.parent}: the data folder cannot be written: {os_reason(error)}\n"
            "  Set UNLEARNBENCH_DATA to another"
        ) from error
    with lock:
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _prepare(
    name: str,
    offer: Offer,
    paths: Sequence[Path],
    new: Path,
    scratch: Path,
    options: FolderOptions,
    listener: Listener,
) -> None:
    if not offer.packed and any(is_archive(path) for path in paths):
        raise DatasetError(f"{name}: its images stay where they are; unpack the archive and add the folder")
    inside = scratch / "unpacked"
    inside.mkdir()
    roots = unpacked(paths, inside, listener.say)
    found = offer.find(roots, options)
    listener.start(len(found.train.labels) + len(found.test.labels))
    side, shape = _size(name, offer, found, options)
    large = len(found.train.labels) * shape[1] * shape[2] * shape[0] > PACK_LIMIT_BYTES
    label = options.name if offer.named else name
    if offer.packed and not (offer.named and large):
        pack(found, new, label, side, shape, listener.advance)
        return
    if inside in roots:
        raise DatasetError(f"{name}: too large to be packed; unpack the archive yourself and add the folder")
    index(found, new, label, shape[1], Path(os.path.commonpath(roots)), listener.advance)


def _size(name: str, offer: Offer, found: Found, options: FolderOptions) -> tuple[int | None, tuple[int, int, int]]:
    """Return the side that images are resized to, or None if they keep their size, and the shape they have then."""
    if offer.shape is not None:
        return None, offer.shape
    side = offer.side or options.side
    if side is None:
        common = _common_size(name, found)
        if common is not None:
            return None, (3, *common)
        side = LARGEST_KEPT_SIDE
    return side, (3, side, side)


def _common_size(name: str, found: Found) -> tuple[int, int] | None:
    """Return the height and width that all images share, or None if they differ or are large.

    Raises:
        DatasetError: If files are not images, each of which is named.
    """
    sizes: set[tuple[int, int]] = set()
    faults = []
    for file in (*found.train.images, *found.test.images):
        try:
            sizes.add(image_size(Path(file).read_bytes(), Path(file)))
        except DatasetError as error:
            faults.append(image_fault(error))
    raise_faults(name, faults)
    return sizes.pop() if len(sizes) == 1 and max(next(iter(sizes))) <= LARGEST_KEPT_SIDE else None
