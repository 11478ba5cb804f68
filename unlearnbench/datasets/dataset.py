"""What a data set is to the benchmark: facts that are cheap to ask for, and images as uint8 arrays."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import platformdirs
from numpy.typing import NDArray

from unlearnbench.errors import DatasetError
from unlearnbench.registry.entry_points import find

# This stands for the revision of a data set of which only the size is known.
NOT_HERE = "not here"


def data_folder() -> Path:
    """Return the folder that holds data sets: `UNLEARNBENCH_DATA`, or the platform's data folder."""
    chosen = os.environ.get("UNLEARNBENCH_DATA")
    return Path(chosen) if chosen else platformdirs.user_data_path("unlearnbench") / "data"


class Images(Protocol):
    """Images of one size, in memory or on disk."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""

    def __len__(self) -> int:
        """Return the number of images."""

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at `indices`, shape (B, C, H, W)."""


@dataclass(frozen=True)
class ArrayImages:
    """Images in one array, which may be a memory map.

    Attributes:
        array: (N, C, H, W) uint8.
    """

    array: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height, width."""
        channels, height, width = self.array.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.array)

    def read(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images at `indices`, shape (B, C, H, W)."""
        return self.array[indices]


@dataclass(frozen=True)
class Part:
    """The training or the test part of a data set.

    Attributes:
        images: N images.
        labels: (N,) int64 class indices.
        ids: (N,) int64, one number per image, unique in the part and the same on every machine.
    """

    images: Images
    labels: NDArray[np.int64]
    ids: NDArray[np.int64]


@dataclass(frozen=True)
class DatasetInfo:
    """Facts about a data set that a plan needs.

    Attributes:
        name: Name of the data set in manifests.
        revision: Identifier that changes whenever an image or a label does.
        class_names: K names in the order of the class indices.
        train_counts: K numbers of training images.
        test_counts: K numbers of test images.
        shape: Channels, height and width of the stored images.
        mean: Mean of each channel of the training images, in [0, 1].
        std: Standard deviation of each channel of the training images, in [0, 1].
        superclasses: K indices, the superclass of each class; empty if the data set has none.
        origin: Repository and commit that its files came from; "" if that is not known.
    """

    name: str
    revision: str
    class_names: tuple[str, ...]
    train_counts: tuple[int, ...]
    test_counts: tuple[int, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    superclasses: tuple[int, ...] = ()
    origin: str = ""


@dataclass(frozen=True)
class Dataset:
    """A data set, whose facts are known now and whose images are read on request.

    Attributes:
        info: Facts about the data set.
        train: Function that reads the training part.
        test: Function that reads the test part.
        made_by: Function that makes it of the data set as it is, in any process; None for a data set as it is.
    """

    info: DatasetInfo
    train: Callable[[], Part]
    test: Callable[[], Part]
    made_by: Callable[[Dataset], Dataset] | None = None


def expected_dataset(
    name: str, classes: int, train: int, test: int, shape: tuple[int, int, int], error: DatasetError
) -> Dataset:
    """Return what is known about a data set that is not here: its size, so that a manifest can be checked and planned.

    Args:
        name: Name of the data set in manifests.
        classes: K classes.
        train: Number of training images, spread over the classes as evenly as possible.
        test: Number of test images, spread in the same way.
        shape: Channels, height and width of the stored images.
        error: Error to raise when an image is read.
    """

    def spread(images: int) -> tuple[int, ...]:
        return tuple(images // classes + (label < images % classes) for label in range(classes))

    def missing() -> Part:
        raise error

    names = tuple(f"class {label}" for label in range(classes))
    grey = (0.5,) * shape[0]
    info = DatasetInfo(name, NOT_HERE, names, spread(train), spread(test), shape, grey, grey)
    return Dataset(info, missing, missing)


def open_dataset(name: str, options: dict[str, Any] | None = None) -> Dataset:
    """Return an installed data set.

    Raises:
        PluginError: If no plugin of this name is installed.
        DatasetError: If its files are missing or damaged.
    """
    reader: Callable[..., Dataset] = find("datasets", name).load()
    return reader(data_folder(), **(options or {}))
