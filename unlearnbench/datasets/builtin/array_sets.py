"""Fashion-MNIST and SVHN, whose images are distributed as arrays of one size."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.io import loadmat

from unlearnbench.datasets.add import Offer, offers
from unlearnbench.datasets.catalog import opened
from unlearnbench.datasets.class_folders import Found, FoundPart, check_counts, file_below
from unlearnbench.datasets.dataset import Dataset
from unlearnbench.errors import DatasetError, os_reason

FASHION_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
FASHION_COUNTS, FASHION_SHAPE = (60_000, 10_000), (1, 28, 28)
DIGITS = tuple("0123456789")
SVHN_COUNTS, SVHN_SHAPE = (73_257, 26_032), (3, 32, 32)
# The first numbers of files of images and of labels in the form of MNIST.
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049


@offers(Offer(lambda roots, options: find_fashion_mnist(roots), shape=FASHION_SHAPE))
def fashion_mnist(folder: Path) -> Dataset:
    """Return Fashion-MNIST: 10 classes of clothes, 28x28 grey, 6,000 training and 1,000 test images each.

    Args:
        folder: The data folder; `unlearnbench data add fashion_mnist` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms" (Xiao et al., 2017).
    """
    return opened(folder / "fashion_mnist", len(FASHION_CLASSES), FASHION_COUNTS, FASHION_SHAPE)


@offers(Offer(lambda roots, options: find_svhn(roots), shape=SVHN_SHAPE))
def svhn(folder: Path) -> Dataset:
    """Return SVHN, the cropped digits of house numbers: 10 classes, 32x32 colour, 73,257 training, 26,032 test images.

    Args:
        folder: The data folder; `unlearnbench data add svhn` puts it there.

    Raises:
        NotHereError: If the data set was not added.
        DatasetError: If its files are damaged.

    Source: "Reading Digits in Natural Images with Unsupervised Feature Learning" (Netzer et al., 2011). The `extra`
    part is not used.
    """
    return opened(folder / "svhn", len(DIGITS), SVHN_COUNTS, SVHN_SHAPE)


def find_fashion_mnist(
    roots: Sequence[Path], *, train: int = FASHION_COUNTS[0], test: int = FASHION_COUNTS[1]
) -> Found:
    """Find Fashion-MNIST's four files below some folders, packed with gzip or not.

    Args:
        roots: Folders that hold `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`.
        train: Number of training images that it has to have.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If a file is missing or damaged, or a number differs.
    """
    parts = []
    for part in ("train", "t10k"):
        paths = [
            file_below("fashion_mnist", roots, name, f"{name}.gz")
            for name in (f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte")
        ]
        images = _idx(paths[0], IMAGES_MAGIC, 16).reshape(-1, *FASHION_SHAPE)
        parts.append(_array_part(paths[1], images, _idx(paths[1], LABELS_MAGIC, 8).astype(np.int64)))
    found = Found(FASHION_CLASSES, parts[0], parts[1])
    check_counts("fashion_mnist", found, len(FASHION_CLASSES), train, test)
    return found


def _idx(path: Path, magic: int, header: int) -> NDArray[np.uint8]:
    """Return the bytes after the header of a file in the form of MNIST.

    Raises:
        DatasetError: If it is no such file, or not whole.
    """
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        reason = os_reason(error) if isinstance(error, OSError) else str(error)
        raise DatasetError(f"{path}: cannot be read: {reason}") from error
    sizes = np.frombuffer(content[: len(content) // 4 * 4][:header], dtype=">u4")
    if len(sizes) < header // 4 or sizes[0] != magic or header + int(np.prod(sizes[1:])) != len(content):
        raise DatasetError(f"{path}: not a whole file of {'images' if magic == IMAGES_MAGIC else 'labels'}")
    return np.frombuffer(content, dtype=np.uint8, offset=header)


def find_svhn(roots: Sequence[Path], *, train: int = SVHN_COUNTS[0], test: int = SVHN_COUNTS[1]) -> Found:
    """Find SVHN's cropped digits below some folders.

    Args:
        roots: Folders that hold `train_32x32.mat` and `test_32x32.mat`.
        train: Number of training images that it has to have.
        test: Number of test images that it has to have.

    Raises:
        DatasetError: If a file is missing or damaged, or a number differs.
    """
    parts = []
    for part in ("train", "test"):
        path = file_below("svhn", roots, f"{part}_32x32.mat")
        try:
            content = loadmat(path, variable_names=["X", "y"])
            images = np.ascontiguousarray(content["X"].transpose(3, 2, 0, 1))
            # The files call the digit 0 ten.
            labels = content["y"].ravel().astype(np.int64) % 10
        # scipy raises almost anything for a damaged file.
        except Exception as error:
            raise DatasetError(f"{path}: not a file of SVHN's images: {error}") from error
        parts.append(_array_part(path, images, labels))
    found = Found(DIGITS, parts[0], parts[1])
    check_counts("svhn", found, len(DIGITS), train, test)
    return found


def _array_part(path: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> FoundPart:
    """Return images with their labels, numbered in the order of their file.

    Raises:
        DatasetError: If there is not a label from 0 to 9 for each image.
    """
    if len(images) != len(labels) or not ((labels >= 0) & (labels < 10)).all():
        raise DatasetError(f"{path}: {len(labels)} labels, not all from 0 to 9, or not one for each image")
    return FoundPart(images, tuple(labels.tolist()), tuple(range(len(labels))))
