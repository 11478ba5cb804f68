"""What can be fetched: the official archives of data sets, each with its size and checksum."""

from __future__ import annotations

from pathlib import Path

from unlearnbench.datasets.dataset import Dataset, expected_dataset
from unlearnbench.datasets.download import Download
from unlearnbench.datasets.storage import is_prepared, open_prepared
from unlearnbench.errors import DatasetError, NotHereError, did_you_mean
from unlearnbench.machine import size_text

_TORONTO = "https://www.cs.toronto.edu/~kriz"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_SVHN = "http://ufldl.stanford.edu/housenumbers"
_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"

# Address, size and MD5 of each file. The checksums are those of torchvision 0.29's data sets, and of CaltechDATA's page
# for CUB-200-2011.
_FILES: dict[str, tuple[tuple[str, int, str], ...]] = {
    "cifar10": ((f"{_TORONTO}/cifar-10-python.tar.gz", 170_498_071, "c58f30108f718f92721af3b95e74349a"),),
    "cifar100": ((f"{_TORONTO}/cifar-100-python.tar.gz", 169_001_437, "eb9058c3a382ffc7106e4002c42a8d85"),),
    "cub200": (
        (
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            1_150_585_339,
            "97eceeb196236b17998738112f37df78",
        ),
    ),
    "fashion_mnist": (
        (f"{_FASHION}/train-images-idx3-ubyte.gz", 26_421_880, "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        (f"{_FASHION}/train-labels-idx1-ubyte.gz", 29_515, "25c81989df183df01b3e8a0aad5dffbe"),
        (f"{_FASHION}/t10k-images-idx3-ubyte.gz", 4_422_102, "bef4ecab320f06d8554ea6380940ec79"),
        (f"{_FASHION}/t10k-labels-idx1-ubyte.gz", 5_148, "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
    "flowers102": (
        (f"{_OXFORD}/flowers/102/102flowers.tgz", 344_862_509, "52808999861908f626f3c1f4e79d11fa"),
        (f"{_OXFORD}/flowers/102/imagelabels.mat", 502, "e0620be6f572b9609742df49c70aed4d"),
        (f"{_OXFORD}/flowers/102/setid.mat", 14_989, "a5357ecc9cb78c4bef273ce3793fc85c"),
    ),
    "food101": (
        ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz", 4_996_278_331, "85eeb15f3717b99a5da872d97d918f87"),
    ),
    "pets": (
        (f"{_OXFORD}/pets/data/images.tar.gz", 791_918_971, "5c4f3ee8e5d25df40f4fd59a7f44e54c"),
        (f"{_OXFORD}/pets/data/annotations.tar.gz", 19_173_078, "95a8c909bbe2e81eed6a22bccdf3f68f"),
    ),
    "svhn": (
        (f"{_SVHN}/train_32x32.mat", 182_040_794, "e26dedcc434d2e4c54c9b2d4a06d8373"),
        (f"{_SVHN}/test_32x32.mat", 64_275_384, "eb5a983be6a315427106f1b164d9cef3"),
    ),
}
DATASET_DOWNLOADS = {
    name: tuple(Download(url, size, "md5", checksum) for url, size, checksum in files) for name, files in _FILES.items()
}
PREPARED_BYTES = {
    "cifar10": 60_000 * 3 * 32 * 32,
    "cifar100": 60_000 * 3 * 32 * 32,
    "cub200": 11_788 * 3 * 256 * 256,
    "fashion_mnist": 70_000 * 28 * 28,
    "flowers102": 8_189 * 3 * 256 * 256,
    # The photos stay in their files.
    "food101": 5_000_000_000,
    "pets": 7_349 * 3 * 256 * 256,
    "svhn": 99_289 * 3 * 32 * 32,
}


def download_bytes(name: str) -> int:
    """Return how many bytes the files of a data set that can be fetched have."""
    return sum(download.size or 0 for download in DATASET_DOWNLOADS[name])


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


def sources(folder: Path, name: str) -> list[str]:
    """Return the names under which a user's own images were added, sorted.

    Args:
        folder: The data folder.
        name: Name of the data set that reads them, such as `image_folder`.
    """
    place = folder / name
    return sorted(entry.name for entry in place.iterdir() if is_prepared(entry)) if place.is_dir() else []


def added(folder: Path, name: str, source: str) -> Dataset:
    """Return a user's own images, which were added under the name `source`.

    Raises:
        DatasetError: If nothing was added under this name, or its files are damaged.
    """
    there = sources(folder, name)
    if source not in there:
        known = did_you_mean(source, there) if there else ""
        raise DatasetError(
            f"no images were added as {source!r}{known}\n  Add them: unlearnbench data add {name} PATH --as {source}"
        )
    return open_prepared(folder / name / source)


def _how_to_get(name: str, folder: Path) -> str:
    """Say what is missing, how large it is, and which commands bring it."""
    add = f"unlearnbench data add {name} PATH..."
    if name not in DATASET_DOWNLOADS:
        return f"{name} is not on this machine: nothing at {folder}\n  Add it: {add}"
    size, packed = download_bytes(name), PREPARED_BYTES[name]
    return (
        f"{name} is not on this machine: nothing at {folder} "
        f"({size_text(size)} to fetch, {size_text(packed)} on disk)\n"
        f"  Fetch it: unlearnbench data fetch {name}, or run with --download; or add your own copy: {add}"
    )
