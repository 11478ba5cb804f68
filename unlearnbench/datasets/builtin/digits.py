"""scikit-learn's handwritten digits: 1,797 real images that need no download."""

from __future__ import annotations

import functools
import hashlib
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from unlearnbench.datasets.dataset import ArrayImages, Dataset, DatasetInfo, Part
from unlearnbench.errors import DatasetError

# One image in four of each class is a test image, so that the split is fixed and has the same share of every class.
TEST_EVERY = 4
TRAIN_COUNTS = (134, 137, 133, 138, 136, 137, 136, 135, 131, 135)
TEST_COUNTS = (44, 45, 44, 45, 45, 45, 45, 44, 43, 45)


def digits(folder: Path) -> Dataset:
    """Return the digits: 10 classes, 8x8 grey pixels, a fixed stratified test part of 445 images.

    Args:
        folder: Not used; the images come with scikit-learn.

    Source: test part of "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998, UCI), as
    shipped with scikit-learn. Its grey values from 0 to 16 are scaled to 0 to 255. Image i of a class, counted in
    the order of the file, is a test image if i % 4 == 3.
    """
    info = DatasetInfo(
        name="digits",
        revision=_revision(),
        class_names=tuple(str(digit) for digit in range(10)),
        train_counts=TRAIN_COUNTS,
        test_counts=TEST_COUNTS,
        shape=(1, 8, 8),
        mean=(0.305,),
        std=(0.376,),
    )
    return Dataset(info, train=lambda: _part(test=False), test=lambda: _part(test=True))


def _file() -> Path:
    """Return the file of the images, found without importing scikit-learn, which takes seconds."""
    spec = find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise DatasetError("digits: scikit-learn is not installed\n  pip install scikit-learn")
    file = Path(spec.origin).parent / "datasets" / "data" / "digits.csv.gz"
    if not file.is_file():
        raise DatasetError(f"digits: {file} is missing\n  pip install --force-reinstall scikit-learn")
    return file


@functools.cache
def _revision() -> str:
    return hashlib.sha256(_file().read_bytes()).hexdigest()[:16]


@functools.cache
def _arrays() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.bool_]]:
    """Return all images (N, 1, 8, 8), labels (N,) and whether each is a test image (N,)."""
    # Each line holds 64 grey values and the label.
    table = np.loadtxt(_file(), delimiter=",")
    images = np.rint(table[:, :-1].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, -1].astype(np.int64)
    test = np.zeros(len(labels), dtype=np.bool_)
    for digit in range(10):
        test[np.flatnonzero(labels == digit)[TEST_EVERY - 1 :: TEST_EVERY]] = True
    return images, labels, test


def _part(*, test: bool) -> Part:
    images, labels, is_test = _arrays()
    ids = np.flatnonzero(is_test == test).astype(np.int64)
    return Part(ArrayImages(images[ids]), labels[ids], ids)
