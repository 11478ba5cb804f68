"""Write a folder of JPEG files in the layout and at the size of a data set that may not be passed on.

The pictures are CIFAR-100's, enlarged; each class is one of CIFAR-100's, or a part of one. What is rehearsed with them
is how long the benchmark takes and what it needs, not how well a network does.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unlearnbench.datasets.builtin.cub200 import CLASSES, TEST_IMAGES, TRAIN_IMAGES
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.machine import cores

CUB_SIZE = (500, 375)
IMAGENET_SIZE = (128, 96)
IMAGENET_CLASSES = 1_000
QUALITY = 90


def sources(classes: int) -> list[NDArray[np.uint8]]:
    """Return CIFAR-100 images for each of a number of classes: a list of arrays (n, 3, 32, 32), uint8."""
    part = open_dataset("cifar100").train()
    kinds = int(part.labels.max()) + 1
    shared = -(-classes // kinds)
    chosen = []
    for index in range(classes):
        places = np.flatnonzero(part.labels == index % kinds)[index // kinds :: shared]
        chosen.append(part.images.read(places))
    return chosen


def write_pictures(work: Iterator[tuple[Path, NDArray[np.uint8]]], size: tuple[int, int]) -> int:
    """Write pictures of a size (width, height) and return their number."""
    with ThreadPoolExecutor(cores()) as pool:
        return sum(pool.map(lambda item: _write(*item, size), work))


def _write(path: Path, image: NDArray[np.uint8], size: tuple[int, int]) -> int:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0)))
    picture.resize(size, Image.Resampling.BICUBIC).save(path, quality=QUALITY)
    return 1


def cub200(folder: Path) -> int:
    """Write `CUB_200_2011` with as many images and classes as the real one, and return the number of pictures."""
    place = folder / "CUB_200_2011"
    counts = [(TRAIN_IMAGES + TEST_IMAGES) // CLASSES] * CLASSES
    train = [TRAIN_IMAGES // CLASSES] * CLASSES
    for index in range((TRAIN_IMAGES + TEST_IMAGES) % CLASSES):
        counts[index] += 1
    for index in range(TRAIN_IMAGES % CLASSES):
        train[index] += 1
    names = [f"{index + 1:03}.Stand_in_{index + 1}" for index in range(CLASSES)]
    rows = [
        (names[index], number, index, number < train[index])
        for index in range(CLASSES)
        for number in range(counts[index])
    ]
    paths = [f"{name}/{name[4:]}_{number:04}.jpg" for name, number, _, _ in rows]
    place.mkdir(parents=True)
    tables = {
        "images.txt": paths,
        "image_class_labels.txt": [index + 1 for _, _, index, _ in rows],
        "train_test_split.txt": [int(is_training) for *_, is_training in rows],
        "classes.txt": names,
    }
    for file, values in tables.items():
        lines = (f"{number} {value}\n" for number, value in enumerate(values, start=1))
        (place / file).write_text("".join(lines), encoding="utf-8")
    found = sources(CLASSES)
    pictures = (
        (place / "images" / path, found[index][number % len(found[index])])
        for path, (_, number, index, _) in zip(paths, rows, strict=True)
    )
    return write_pictures(pictures, CUB_SIZE)


def imagenet(folder: Path, images: int) -> int:
    """Write small files into `train` and `val`, a tenth into `val`, with a folder for each of 1,000 classes."""
    found = sources(IMAGENET_CLASSES)
    per_class = images // IMAGENET_CLASSES
    pictures = (
        (
            folder / ("train" if number % 10 else "val") / f"n{index:08}" / f"n{index:08}_{number}.JPEG",
            found[index][number % len(found[index])],
        )
        for index, number in itertools.product(range(IMAGENET_CLASSES), range(per_class))
    )
    return write_pictures(pictures, IMAGENET_SIZE)


def main() -> None:
    """Write what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.stand_ins", description=__doc__)
    parser.add_argument("what", choices=("cub200", "imagenet"))
    parser.add_argument("folder", type=Path, help="where the pictures go")
    parser.add_argument("--images", type=int, default=100_000, help="number of pictures of imagenet")
    given = parser.parse_args()
    number = cub200(given.folder) if given.what == "cub200" else imagenet(given.folder, given.images)
    print(f"{number:,} pictures in {given.folder}")


if __name__ == "__main__":
    main()
