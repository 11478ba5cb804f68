"""CUB-200-2011, from its own files joined on the image id."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, FoundPart, check_counts, raise_faults
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.errors import DatasetError

CLASSES, TRAIN_IMAGES, TEST_IMAGES = 200, 5_994, 5_794
SIDE = 256
FILES = ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")


@offers(Offer(lambda roots, options: find(roots), side=SIDE))
def cub200(folder: Path) -> Dataset:
    """Return CUB-200-2011: 200 bird species, colour, the official 5,994 training and 5,794 test images.

    Args:
        folder: The data folder; `unlearnbench data fetch cub200` or `data add cub200` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "The Caltech-UCSD Birds-200-2011 Dataset" (Wah et al., 2011). Images are stored with the shorter side
    resized to 256 and cropped to the square in the centre, from which the recipe cuts 224x224. The paper does not
    say how it resized its images.
    """
    return opened(folder / "cub200", CLASSES, (TRAIN_IMAGES, TEST_IMAGES), (3, SIDE, SIDE))


def find(roots: Sequence[Path], *, classes: int = CLASSES, train: int = TRAIN_IMAGES, test: int = TEST_IMAGES) -> Found:
    """Find CUB-200-2011 below some folders and check that it is complete.

    The lists are joined on the image id, never by their order, and each image keeps its official id.

    Args:
        roots: Folders, one of which holds `images.txt` directly or one level down.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If anything is missing or does not belong, all of which is named.
    """
    places = [place for root in roots for place in (root, *sorted(p for p in root.iterdir() if p.is_dir()))]
    place = next((place for place in places if (place / FILES[0]).is_file()), None)
    if place is None:
        where = ", ".join(str(root) for root in roots)
        raise DatasetError(f"cub200: no {FILES[0]} in {where}; give the folder CUB_200_2011 or its archive")
    faults: list[str] = []
    images, labels, split, names = (_table(place / file, faults) for file in FILES)
    for file, table in (("image_class_labels.txt", labels), ("train_test_split.txt", split)):
        faults += [f"{place / file}: no line for image {key}" for key in images if key not in table]
        faults += [f"{place / file}: image {key} is not in images.txt" for key in table if key not in images]
    paths = [place / "images" / path for path in images.values()]
    faults += [f"{path}: missing" for path in paths if not path.is_file()]
    faults += [f"image {key} has class {value}, not in classes.txt" for key, value in _foreign(labels, names)]
    neither = ((key, value) for key, value in split.items() if value not in ("0", "1"))
    faults += [f"{place / FILES[2]}: image {key} is {value!r}, not 1 (training) or 0 (test)" for key, value in neither]
    raise_faults("cub200", faults)
    order = {key: index for index, key in enumerate(sorted(names))}
    parts = []
    for wanted in ("1", "0"):
        keys = [key for key in sorted(images) if split[key] == wanted]
        files = [place / "images" / images[key] for key in keys]
        parts.append(FoundPart(files, tuple(order[int(labels[key])] for key in keys), tuple(keys)))
    found = Found(tuple(names[key] for key in sorted(names)), parts[0], parts[1])
    _check_parts(found)
    check_counts("cub200", found, classes, train, test)
    return found


def _table(path: Path, faults: list[str]) -> dict[int, str]:
    """Return the text of each line "number text" of a file, by number."""
    table: dict[int, str] = {}
    if not path.is_file():
        faults.append(f"{path}: missing")
        return table
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        key, _, value = line.strip().partition(" ")
        if not key.isdigit() or not value:
            faults.append(f"{path}:{number}: {line!r} is not a number and a value")
        elif int(key) in table:
            faults.append(f"{path}:{number}: {key} stands there twice")
        else:
            table[int(key)] = value
    return table


def _foreign(labels: dict[int, str], names: dict[int, str]) -> list[tuple[int, str]]:
    return [(key, value) for key, value in labels.items() if not value.isdigit() or int(value) not in names]


def _check_parts(found: Found) -> None:
    parts = (("training", found.train), ("test", found.test))
    raise_faults(
        "cub200",
        [
            f"class {name!r} has no {what} image"
            for what, part in parts
            for name, count in zip(found.class_names, found.counts(part), strict=True)
            if count == 0
        ],
    )
