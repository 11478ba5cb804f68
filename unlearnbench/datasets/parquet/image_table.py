"""Images in parquet files, with a column for the image and one for its class."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearnbench.datasets.add import FolderOptions, Offer, offers
from unlearnbench.datasets.builtin.image_folder import TEST_NAMES, TRAIN_NAMES
from unlearnbench.datasets.catalog import added
from unlearnbench.datasets.class_folders import Found, FoundPart, alike, raise_faults, share_for_test
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.datasets.parquet.hub_cache import dataset_folder, origin
from unlearnbench.datasets.parquet.table import Cell, Table, TableError

NAME = "parquet"


@offers(Offer(lambda roots, options: find(roots, options), named=True, locate=dataset_folder))
def parquet(folder: Path, *, source: str = "default") -> Dataset:
    """Return images that were added with `unlearnbench data add parquet PATH --as NAME`.

    PATH is a folder of parquet files, or `hub:ORGANISATION/NAME@REVISION` for what is in the cache of the Hugging Face
    hub on this machine. `unlearnbench data fetch hub:ORGANISATION/NAME` brings it there and adds it.

    Args:
        folder: The data folder.
        source: The NAME under which they were added.

    Raises:
        DatasetError: If nothing was added under this name, or its files are damaged.

    Source: own. Classes have the order of the names in the file's schema, or else of the numbers or texts themselves.
    Without a test part, every fifth image of each class becomes a test image, chosen by the hash of file and row.
    """
    return added(folder, NAME, source)


@dataclass(frozen=True)
class _Part:
    """What one file holds.

    Attributes:
        test: Whether its name says that it is of the test part; None if it says nothing.
        cells: Its images.
        values: The class of each as the file has it, a number or a text.
        class_names: Names of the classes in its schema; None if there are none.
        column: Its column of classes.
    """

    test: bool | None
    cells: list[Cell]
    values: list[Any]
    class_names: tuple[str, ...] | None
    column: str


def find(roots: Sequence[Path], options: FolderOptions) -> Found:
    """Find images and classes in the parquet files below some folders.

    Args:
        roots: The folders.
        options: The columns, and the share of each class that becomes the test part if no file is one.

    Raises:
        DatasetError: If anything is missing or does not fit, all of which is named with file and column.
    """
    files = {file: file.relative_to(root) for root in roots for file in sorted(root.rglob("*.parquet"))}
    faults = [] if files else [f"no file *.parquet in {', '.join(map(str, roots))}"]
    parts = list(_parts(files, options, faults))
    raise_faults(NAME, faults)
    if not parts:
        raise_faults(NAME, [f"{', '.join(map(str, files))}: no rows"])
    names = _class_names(parts, faults)
    raise_faults(NAME, faults)
    labels = dict(_labels(parts, names, faults))
    raise_faults(NAME, faults)
    tests = {cell for part in parts for cell in part.cells if part.test}
    if not tests:
        tests = _share(labels, names, options.test_share, faults)
    elif any(part.test is None for part in parts):
        unclear = next(part.cells[0].parent for part in parts if part.test is None)
        faults.append(f"{unclear}: neither a training nor a test part by its name; rename it or move it away")
    train, test = (_found(labels, [cell for cell in labels if (cell in tests) is wanted]) for wanted in (False, True))
    for what, part in (("training", train), ("test", test)):
        counted = Counter(part.labels)
        lacking = [name for label, name in enumerate(names) if not counted[label]]
        if lacking and not faults:
            faults.append(f"no {what} image of {len(lacking)} of {len(names)} classes: {', '.join(lacking[:3])}")
    raise_faults(NAME, faults)
    return Found(names, train, test, tuple(alike(names)), origin(roots))


def _parts(files: Mapping[Path, Path], options: FolderOptions, faults: list[str]) -> Iterator[_Part]:
    for file, place in files.items():
        try:
            table = Table(file)
            columns = table.columns(options.image_column, options.label_column)
            values = table.labels(columns.label)
        except TableError as error:
            faults.append(str(error))
            continue
        cells = [Cell(table, columns.image, row) for row in range(len(table))]
        if cells:
            yield _Part(_is_test(place), cells, values, columns.class_names, columns.label)


def _is_test(place: Path) -> bool | None:
    """Return whether a file is of the test part, by its name or that of its folder: `test-00000-of-00001.parquet`."""
    for name in (place.stem, place.parent.name):
        word = re.split(r"[-._ ]", name.casefold())[0]
        if word in TRAIN_NAMES or word in TEST_NAMES:
            return word in TEST_NAMES
    return None


def _class_names(parts: Sequence[_Part], faults: list[str]) -> tuple[str, ...]:
    """Return the names that the files agree on, or the numbers or texts that occur, in their order."""
    first = parts[0]
    faults += [
        f"{part.cells[0].parent}: column {part.column!r}: other class names than {first.cells[0].parent} has"
        for part in parts
        if part.class_names != first.class_names
    ]
    if first.class_names:
        return first.class_names
    values = {value for part in parts for value in part.values}
    if len({type(value) for value in values}) > 1:
        faults.append(f"column {first.column!r}: numbers in one file and texts in another")
        return ()
    return tuple(map(str, sorted(values)))


def _labels(parts: Sequence[_Part], names: Sequence[str], faults: list[str]) -> Iterator[tuple[Cell, int]]:
    """Yield each image with its class index."""
    known: dict[Any, int] = {name: label for label, name in enumerate(names)}
    if parts[0].class_names:
        known |= {label: label for label in range(len(names))}
    else:
        known |= {int(name): label for label, name in enumerate(names) if not isinstance(parts[0].values[0], str)}
    for part in parts:
        for cell, value in zip(part.cells, part.values, strict=True):
            if value in known:
                yield cell, known[value]
            else:
                faults.append(
                    f"{cell.parent}: column {part.column!r}: row {cell.row} has class {value!r}, "
                    f"where the schema names {len(names)} classes"
                )


def _share(labels: dict[Cell, int], names: Sequence[str], share: float, faults: list[str]) -> set[Cell]:
    """Return the images that become the test part where the files have none."""
    classes: dict[str, list[Cell]] = {name: [] for name in names}
    for cell, label in labels.items():
        classes[names[label]].append(cell)
    _, test = share_for_test(NAME, classes, share, faults)
    return {cell for cells in test.values() for cell in cells}


def _found(labels: dict[Cell, int], cells: Sequence[Cell]) -> FoundPart:
    return FoundPart(cells, tuple(labels[cell] for cell in cells), tuple(range(len(cells))))
