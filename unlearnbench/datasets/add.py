"""Adding a data set: a user's files become a prepared folder, either completely or not at all."""

from __future__ import annotations

import math
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock

from unlearnbench.datasets.class_folders import Found
from unlearnbench.datasets.dataset import DatasetInfo, data_folder
from unlearnbench.datasets.download import is_archive, unpacked
from unlearnbench.datasets.findings import Size, common_size
from unlearnbench.datasets.storage import Advance, index, open_prepared, pack
from unlearnbench.errors import DatasetError, PluginError, did_you_mean, os_reason
from unlearnbench.registry.entry_points import find, names

Reader = TypeVar("Reader", bound=Callable[..., Any])

# A larger image folder is not packed; its images stay where they are.
PACK_LIMIT_BYTES = 16 * 2**30
TEST_SHARE = 0.2


@dataclass(frozen=True)
class FolderOptions:
    """What a user can choose for images of her own.

    Attributes:
        name: Name under which the images are added.
        side: Side of the square that each image becomes; None leaves the choice to the size of the images.
        test_share: Share of each class that becomes the test part if there is none.
        image_column: Column of a table that holds the images; None finds it.
        label_column: Column of a table that holds the classes, likewise.
        replace: Whether images that were added under this name before, and are others, may be replaced.
    """

    name: str = "default"
    side: int | None = None
    test_share: float = TEST_SHARE
    image_column: str | None = None
    label_column: str | None = None
    replace: bool = False


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
        locate: Function that returns the folder or archive that a path of the user's stands for.
    """

    find: Callable[[Sequence[Path], FolderOptions], Found]
    side: int | None = None
    shape: tuple[int, int, int] | None = None
    packed: bool = True
    named: bool = False
    locate: Callable[[Path], Path] = lambda path: path


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
        raise DatasetError(f"{name!r} cannot be added{did_you_mean(name, _addable())}")
    check_name(options.name)
    target = data_folder() / name / options.name if offer.named else data_folder() / name
    with _scratch(target) as scratch:
        new = scratch / "new"
        new.mkdir()
        try:
            given = [offer.locate(path).resolve() for path in paths]
            _prepare(name, offer, given, new, scratch, options, listener)
        except OSError as error:
            raise DatasetError(f"{name}: cannot be written to {new.parent}: {os_reason(error)}") from error
        before, now = _revision(target), open_prepared(new).info.revision
        if offer.named and before not in (None, now) and not options.replace:
            again = shlex.join(["unlearnbench", "data", "add", name, *map(str, paths), "--as"])
            raise DatasetError(
                f"{name}: other images were added as {options.name} (revision {before})\n"
                f"  Replace them: {again} {options.name} --replace\n"
                f"  Or add these beside them: {again} NAME"
            )
        if target.exists():
            target.rename(scratch / "replaced")
        new.rename(target)
    info = open_prepared(target).info
    if before not in (None, info.revision):
        listener.say(f"{info.name}: replaced revision {before} by {info.revision}")
    return info


def _addable() -> list[str]:
    """Return the data sets that can be added; one whose reader cannot be imported does not hide the others."""
    found = []
    for name in names("datasets"):
        with suppress(PluginError):
            if offer_of(name):
                found.append(name)
    return found


def check_name(name: str) -> str:
    """Return a name that class folders are added under.

    Raises:
        DatasetError: If it could not be the name of a folder.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise DatasetError(f"--as {name}: a name is letters, digits, dots, dashes and underscores")
    return name


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
    size = _size(name, offer, found, options)
    shape = (offer.shape[0] if offer.shape else 3, size.height, size.width)
    large = len(found.train.labels) * math.prod(shape) > PACK_LIMIT_BYTES
    label = options.name if offer.named else name
    if offer.packed and not (offer.named and large):
        notes = pack(found, new, label, shape, listener.advance, resized=offer.shape is None)
    elif not isinstance(found.train.images[0], Path):
        at = f"{size.width}x{size.height}"
        raise DatasetError(f"{name}: too large to be packed as {at}; choose a smaller square with --side")
    elif inside in roots:
        raise DatasetError(f"{name}: too large to be packed; unpack the archive yourself and add the folder")
    elif size.height != size.width:
        raise DatasetError(
            f"{name}: too large to be packed, and then images have to be squares; choose one with --side"
        )
    else:
        root = Path(os.path.commonpath(roots))
        notes = index(found, new, label, size.height, root, listener.advance)
    for note in (*found.notes, size.note, *notes):
        if note:
            listener.say(f"{label}: {note}")


def _size(name: str, offer: Offer, found: Found, options: FolderOptions) -> Size:
    """Return the height and width that images are stored in."""
    if offer.shape is not None:
        return Size(*offer.shape[1:])
    side = offer.side or options.side
    return common_size(name, found) if side is None else Size(side, side)


def remove(name: str, source: str | None = None) -> None:
    """Remove a data set that was added or fetched from the data folder; files that stayed elsewhere are left there.

    Args:
        name: Name of the data set.
        source: Name that class folders were added under; None for a data set of which there is only one.

    Raises:
        DatasetError: If there is no such data set, or it cannot be removed.
    """
    offer = offer_of(name) if name in names("datasets") else None
    if offer is None:
        raise DatasetError(f"{name!r} was not added{did_you_mean(name, _addable())}")
    if offer.named and source is None:
        there = sorted(entry.name for entry in (data_folder() / name).glob("[!.]*"))
        listed = f"\n  Added: {', '.join(there)}" if there else ""
        raise DatasetError(f"{name}: there can be several; name one with --as NAME{listed}")
    place = data_folder() / name / check_name(source) if offer.named and source else data_folder() / name
    with _scratch(place) as scratch:
        if not place.is_dir():
            raise DatasetError(f"{name}{f' {source}' if source else ''} is not on this machine: nothing at {place}")
        try:
            # Renamed first, so that nobody finds half of it.
            place.rename(scratch / "removed")
        except OSError as error:
            raise DatasetError(f"{place}: cannot be removed: {os_reason(error)}") from error
