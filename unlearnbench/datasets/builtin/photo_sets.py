"""Oxford flowers, Oxford pets and Food-101: photos of many sizes with official lists of training and test images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from scipy.io import loadmat

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, FoundPart, check_counts, file_below, raise_faults
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.errors import DatasetError

SIDE = 256
FLOWERS, FLOWERS_COUNTS = 102, (2_040, 6_149)
PETS, PETS_COUNTS = 37, (3_680, 3_669)
FOODS, FOODS_COUNTS = 101, (75_750, 25_250)


@offers(Offer(lambda roots, options: find_flowers102(roots), side=SIDE))
def flowers102(folder: Path) -> Dataset:
    """Return Oxford's 102 flower species, colour, 20 training images each and 6,149 test images in all.

    Args:
        folder: The data folder; `unlearnbench data add flowers102` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Automated Flower Classification over a Large Number of Classes" (Nilsback and Zisserman, 2008). Its
    validation images are training images here, as usual. Images are stored as those of `cub200` are.
    """
    return opened(folder / "flowers102", FLOWERS, FLOWERS_COUNTS, (3, SIDE, SIDE))


@offers(Offer(lambda roots, options: find_pets(roots), side=SIDE))
def pets(folder: Path) -> Dataset:
    """Return Oxford-IIIT Pet: 37 breeds of cats and dogs, colour, 3,680 training and 3,669 test images.

    Args:
        folder: The data folder; `unlearnbench data add pets` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Cats and Dogs" (Parkhi et al., 2012); the official parts `trainval` and `test`. Images are stored as those
    of `cub200` are.
    """
    return opened(folder / "pets", PETS, PETS_COUNTS, (3, SIDE, SIDE))


@offers(Offer(lambda roots, options: find_food101(roots), side=SIDE, packed=False))
def food101(folder: Path) -> Dataset:
    """Return Food-101: 101 dishes, colour, 750 training and 250 test images each, which stay in their files.

    Args:
        folder: The data folder; `unlearnbench data add food101` puts an index of the files there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Food-101 - Mining Discriminative Components with Random Forests" (Bossard et al., 2014).
    """
    return opened(folder / "food101", FOODS, FOODS_COUNTS, (3, SIDE, SIDE))


def find_flowers102(
    roots: Sequence[Path], *, classes: int = FLOWERS, train: int = FLOWERS_COUNTS[0], test: int = FLOWERS_COUNTS[1]
) -> Found:
    """Find the flowers below some folders.

    Args:
        roots: Folders that hold `imagelabels.mat`, `setid.mat` and the folder `jpg` of `102flowers.tgz`.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have, those for validation among them.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If a file is missing or damaged, or a number differs.
    """
    name = "flowers102"
    places = [file_below(name, roots, file) for file in ("imagelabels.mat", "setid.mat", "image_00001.jpg")]
    try:
        labels = loadmat(places[0])["labels"].ravel() - 1
        lists = loadmat(places[1])
        split = {"train": [*lists["trnid"].ravel(), *lists["valid"].ravel()], "test": list(lists["tstid"].ravel())}
    # scipy raises almost anything for a damaged file.
    except Exception as error:
        raise DatasetError(f"{places[0].parent}: imagelabels.mat or setid.mat is damaged: {error}") from error
    faults: list[str] = []
    parts = []
    for numbers in split.values():
        ids = sorted(int(number) for number in numbers)
        files = [places[2].with_name(f"image_{number:05}.jpg") for number in ids]
        parts.append(_photos(files, [int(labels[number - 1]) for number in ids], ids, faults))
    raise_faults(name, faults)
    found = Found(flower_names(int(labels.max()) + 1), parts[0], parts[1])
    check_counts(name, found, classes, train, test)
    return found


def flower_names(count: int) -> tuple[str, ...]:
    """Return the species in the order of the labels, which only torchvision lists."""
    from torchvision.datasets import Flowers102

    known = tuple(getattr(Flowers102, "classes", ()))
    return known[:count] if len(known) == FLOWERS else tuple(f"species {number}" for number in range(1, count + 1))


def find_pets(
    roots: Sequence[Path], *, classes: int = PETS, train: int = PETS_COUNTS[0], test: int = PETS_COUNTS[1]
) -> Found:
    """Find the pets below some folders.

    Args:
        roots: Folders that hold `annotations` with `trainval.txt` and `test.txt`, and `images`.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If a file is missing or a line of a list cannot be read, or a number differs.
    """
    lists = [file_below("pets", roots, file) for file in ("trainval.txt", "test.txt")]
    images = next((found for root in roots for found in sorted(root.rglob("images")) if found.is_dir()), None)
    if images is None:
        raise DatasetError(f"pets: no folder images in {', '.join(map(str, roots))}")
    faults: list[str] = []
    rows: list[list[tuple[Path, str, int]]] = []
    for path in lists:
        rows.append([])
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            fields = line.split()
            if len(fields) != 4 or not fields[1].isdigit():
                faults.append(f"{path}:{number}: {line!r} is not a name and three numbers")
            else:
                rows[-1].append((images / f"{fields[0]}.jpg", fields[0].rpartition("_")[0], int(fields[1]) - 1))
    names = {label: breed for part in rows for _, breed, label in part}
    order = sorted({file.name for part in rows for file, _, _ in part})
    ids = {name: number for number, name in enumerate(order)}
    parts = [
        _photos([row[0] for row in part], [row[2] for row in part], [ids[row[0].name] for row in part], faults)
        for part in rows
    ]
    raise_faults("pets", faults)
    found = Found(
        tuple(names.get(label, f"class {label}") for label in range(max(names, default=-1) + 1)), parts[0], parts[1]
    )
    check_counts("pets", found, classes, train, test)
    return found


def find_food101(
    roots: Sequence[Path], *, classes: int = FOODS, train: int = FOODS_COUNTS[0], test: int = FOODS_COUNTS[1]
) -> Found:
    """Find the dishes below some folders.

    Args:
        roots: Folders, one of which holds `meta` with `train.txt` and `test.txt` beside `images`.
        classes: Number of classes that it has to have.
        train: Number of training images that it has to have.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If a file is missing, or a number differs.
    """
    lists = [file_below("food101", roots, f"meta/{part}.txt") for part in ("train", "test")]
    images = lists[0].parent.parent / "images"
    members = [path.read_text(encoding="utf-8").split() for path in lists]
    names = sorted({member.partition("/")[0] for part in members for member in part})
    ids = {member: number for number, member in enumerate(sorted(member for part in members for member in part))}
    faults: list[str] = []
    parts = [
        _photos(
            [images / f"{member}.jpg" for member in part],
            [names.index(member.partition("/")[0]) for member in part],
            [ids[member] for member in part],
            faults,
        )
        for part in members
    ]
    raise_faults("food101", faults)
    found = Found(tuple(names), parts[0], parts[1])
    check_counts("food101", found, classes, train, test)
    return found


def _photos(files: list[Path], labels: list[int], ids: list[int], faults: list[str]) -> FoundPart:
    """Return a part in the order of classes and ids, and append each file that is missing to `faults`."""
    faults += [f"{file}: missing" for file in files if not file.is_file()]
    rows = sorted(zip(labels, ids, files, strict=True))
    return FoundPart([row[2] for row in rows], tuple(row[0] for row in rows), tuple(row[1] for row in rows))
