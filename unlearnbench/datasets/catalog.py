"""What can be fetched: the official archives of data sets, each with its size and checksum."""

from __future__ import annotations

from pathlib import Path

from unlearnbench.datasets.dataset import Dataset, expected_dataset
from unlearnbench.datasets.download import Download
from unlearnbench.datasets.storage import is_prepared, open_prepared
from unlearnbench.errors import DatasetError, NotHereError
from unlearnbench.machine import size_text

# The checksums are those of torchvision 0.29's datasets/cifar.py and of CaltechDATA's record page for CUB-200-2011.
DATASET_DOWNLOADS = {
    "cifar10": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        170_498_071,
        "md5",
        "c58f30108f718f92721af3b95e74349a",
    ),
    "cifar100": Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        169_001_437,
        "md5",
        "eb9058c3a382ffc7106e4002c42a8d85",
    ),
    "cub200": Download(
        "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
        1_150_585_339,
        "md5",
        "97eceeb196236b17998738112f37df78",
    ),
}
PREPARED_BYTES = {
    "cifar10": 60_000 * 3 * 32 * 32,
    "cifar100": 60_000 * 3 * 32 * 32,
    "cub200": 11_788 * 3 * 256 * 256,
}


def opened(
    place: Path, classes: int, counts: tuple[int, int], shape: tuple[int, int, int], message: str | None = None
) -> Dataset:
    """Return a built-in data set that was added to this machine.

    Args:
        place: Its folder in the data folder, which has its name.
        classes: Number of classes that it has.
        counts: Numbers of training and test images that it has.
        shape: Channels, height and width of its images.
        message: What is said if it is not there; None names the commands that bring it.

    Raises:
        NotHereError: If it was not added; the error has its known size for the plan.
        DatasetError: If its files are damaged.
    """
    if is_prepared(place):
        return open_prepared(place)
    message = message or _how_to_get(place.name, place)
    raise NotHereError(message, expected_dataset(place.name, classes, *counts, shape, DatasetError(message)))


def _how_to_get(name: str, folder: Path) -> str:
    """Say what is missing, how large it is, and which commands bring it."""
    add = f"unlearnbench data add {name} PATH..."
    if name not in DATASET_DOWNLOADS:
        return f"{name} is not on this machine: nothing at {folder}\n  Add it: {add}"
    size, packed = DATASET_DOWNLOADS[name].size or 0, PREPARED_BYTES[name]
    return (
        f"{name} is not on this machine: nothing at {folder} "
        f"({size_text(size)} to fetch, {size_text(packed)} on disk)\n"
        f"  Fetch it: unlearnbench data fetch {name}, or run with --download; or add your own copy: {add}"
    )
