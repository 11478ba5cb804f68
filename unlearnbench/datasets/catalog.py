"""What can be fetched: the official archives of data sets, each with its size and checksum."""

from __future__ import annotations

from pathlib import Path

from unlearnbench.datasets.dataset import expected_dataset
from unlearnbench.datasets.download import Download
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


def not_here(name: str, message: str, classes: int, train: int, test: int, shape: tuple[int, int, int]) -> NotHereError:
    """Return the error for a data set that is not on this machine, with its known size for the plan."""
    stand_in = expected_dataset(name, classes, train, test, shape, DatasetError(message))
    return NotHereError(message, stand_in)


def how_to_get(name: str, folder: Path) -> str:
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
