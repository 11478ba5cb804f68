"""Fashion-MNIST, SVHN, flowers, pets and Food-101, in their real formats with a few images each."""

from __future__ import annotations

import functools
import gzip
import hashlib
import shutil
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat
from support.commands import cli
from support.tiny_data import WebServer, write_image

from unlearnbench.datasets import catalog
from unlearnbench.datasets.add import add
from unlearnbench.datasets.builtin import array_sets, photo_sets
from unlearnbench.datasets.dataset import DatasetInfo, open_dataset
from unlearnbench.datasets.download import Download
from unlearnbench.errors import DatasetError, NotHereError

pytest_plugins = ["support.data_fixtures"]
LABELS = {"train": [9, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "test": list(range(10))}


def drawn(seed: int, *shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(256, size=shape, dtype=np.uint8)


def fashion_files(folder: Path, *, packed: bool) -> Path:
    folder.mkdir(parents=True)
    for seed, (part, name) in enumerate((("train", "train"), ("test", "t10k"))):
        labels = np.array(LABELS[part], dtype=np.uint8)
        images = drawn(seed, len(labels), 28, 28)
        contents = {
            f"{name}-images-idx3-ubyte": struct.pack(">4I", 2051, len(labels), 28, 28) + images.tobytes(),
            f"{name}-labels-idx1-ubyte": struct.pack(">2I", 2049, len(labels)) + labels.tobytes(),
        }
        for file, content in contents.items():
            path = folder / (f"{file}.gz" if packed else file)
            path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def svhn_files(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for seed, part in enumerate(("train", "test")):
        labels = np.array(LABELS[part])
        # The digit 0 is called ten, and images stand last.
        content = {"X": drawn(seed, 32, 32, 3, len(labels)), "y": np.where(labels == 0, 10, labels)[:, None]}
        savemat(folder / f"{part}_32x32.mat", content)
    return folder


def flower_files(folder: Path) -> Path:
    for number in range(1, 8):
        write_image(folder / "jpg" / f"image_{number:05}.jpg", 40 + number, 30, number)
    savemat(folder / "imagelabels.mat", {"labels": np.array([[2, 1, 2, 1, 2, 1, 1]])})
    savemat(folder / "setid.mat", {"trnid": [[5, 2]], "valid": [[1, 6]], "tstid": [[7, 3, 4]]})
    return folder


def pet_files(folder: Path) -> Path:
    (folder / "annotations").mkdir(parents=True)
    lines = {
        "trainval": ("Bengal_2 1 1 1", "basset_hound_10 2 2 1"),
        "test": ("Bengal_1 1 1 1", "basset_hound_9 2 2 1"),
    }
    for part, found in lines.items():
        (folder / "annotations" / f"{part}.txt").write_text("\n".join(found) + "\n")
        for line in found:
            write_image(folder / "images" / f"{line.split()[0]}.jpg", 30, 40, len(line))
    return folder


def food_files(folder: Path) -> Path:
    members = {"train": ("ramen/3", "apple_pie/1", "apple_pie/22"), "test": ("ramen/4", "apple_pie/5")}
    (folder / "meta").mkdir(parents=True)
    for part, found in members.items():
        (folder / "meta" / f"{part}.txt").write_text("\n".join(found) + "\n")
        for member in found:
            write_image(folder / "images" / f"{member}.jpg", 32, 32, len(member))
    return folder


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the readers be content with a few images."""
    small = functools.partial(array_sets.find_fashion_mnist, train=12, test=10)
    monkeypatch.setattr(array_sets, "find_fashion_mnist", small)
    monkeypatch.setattr(array_sets, "find_svhn", functools.partial(array_sets.find_svhn, train=12, test=10))
    for name, counts in {"flowers102": (4, 3), "pets": (2, 2), "food101": (3, 2)}.items():
        find = functools.partial(getattr(photo_sets, f"find_{name}"), classes=2, train=counts[0], test=counts[1])
        monkeypatch.setattr(photo_sets, f"find_{name}", find)


def train_image(name: str, number: int) -> NDArray[np.uint8]:
    found: NDArray[np.uint8] = open_dataset(name).train().images.read(np.array([number]))[0]
    return found


def test_fashion_mnist_is_read_packed_and_unpacked(data: Path, tmp_path: Path) -> None:
    plain = add("fashion_mnist", [fashion_files(tmp_path / "x", packed=False)])
    packed = add("fashion_mnist", [fashion_files(tmp_path / "y" / "FashionMNIST" / "raw", packed=True).parents[1]])
    assert plain == packed
    assert (packed.shape, packed.class_names[9], packed.train_counts) == ((1, 28, 28), "Ankle boot", (2, *(1,) * 8, 2))
    assert np.array_equal(train_image("fashion_mnist", 3)[0], drawn(0, 12, 28, 28)[3])


def test_svhn_calls_ten_zero(data: Path, tmp_path: Path) -> None:
    info = add("svhn", [svhn_files(tmp_path / "x")])
    assert (info.class_names, info.train_counts) == (tuple("0123456789"), (2, *(1,) * 8, 2))
    assert open_dataset("svhn").train().labels.tolist() == LABELS["train"]
    assert np.array_equal(train_image("svhn", 4), drawn(0, 32, 32, 3, 12)[..., 4].transpose(2, 0, 1))


def added(name: str, folder: Path) -> tuple[DatasetInfo, list[int], list[int]]:
    info = add(name, [folder])
    dataset = open_dataset(name)
    return info, dataset.train().ids.tolist(), dataset.test().ids.tolist()


def test_flowers_have_validation_among_the_training_images(data: Path, tmp_path: Path) -> None:
    info, train, test = added("flowers102", flower_files(tmp_path / "flowers-102"))
    assert (train, test) == ([2, 6, 1, 5], [4, 7, 3])
    assert (info.train_counts, info.test_counts, info.shape) == ((2, 2), (2, 1), (3, 256, 256))
    assert len(set(photo_sets.flower_names(102))) == 102


def test_pets_are_named_by_their_breed(data: Path, tmp_path: Path) -> None:
    info, train, test = added("pets", pet_files(tmp_path / "x"))
    assert info.class_names == ("Bengal", "basset_hound")
    assert (train, test) == ([1, 2], [0, 3])


def test_food_stays_in_its_files(data: Path, tmp_path: Path) -> None:
    folder = food_files(tmp_path / "food-101")
    info, train, test = added("food101", folder)
    assert (info.class_names, train, test) == (("apple_pie", "ramen"), [0, 1, 3], [2, 4])
    (folder / "images" / "ramen" / "3.jpg").unlink()
    with pytest.raises(DatasetError, match=r"ramen/3\.jpg"):
        train_image("food101", 2)


FILES: dict[str, tuple[Callable[[Path], Path], dict[str, str]]] = {
    # What lies on the server, and the folder that an archive is of; "" for a file as it is.
    "fashion_mnist": (
        lambda folder: fashion_files(folder, packed=True),
        {f"{part}-{what}-ubyte.gz": "" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")},
    ),
    "svhn": (svhn_files, {"train_32x32.mat": "", "test_32x32.mat": ""}),
    "flowers102": (flower_files, {"102flowers.tgz": "jpg", "imagelabels.mat": "", "setid.mat": ""}),
    "pets": (pet_files, {"images.tar.gz": "images", "annotations.tar.gz": "annotations"}),
    "food101": (food_files, {"food-101.tar.gz": "."}),
}


@pytest.mark.parametrize("name", FILES)
def test_each_is_fetched_from_where_it_is_published(
    data: Path, tmp_path: Path, server: WebServer, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write, files = FILES[name]
    assert [download.file_name for download in catalog.DATASET_DOWNLOADS[name]] == list(files)
    folder = write(tmp_path / "published")
    downloads = []
    for file, inside in files.items():
        path = tmp_path / file if inside else folder / file
        if inside:
            with tarfile.open(path, "w:gz") as tar:
                tar.add(folder / inside, inside)
        content = path.read_bytes()
        server.files[f"/{file}"] = content
        downloads.append(Download(server.url(f"/{file}"), None, "md5", hashlib.md5(content).hexdigest()))
    monkeypatch.setitem(catalog.DATASET_DOWNLOADS, name, tuple(downloads))
    own = add(name, [folder])
    done = cli("data", "fetch", name)
    assert done.code == 0, done.err
    info = open_dataset(name).info
    assert info == own
    assert [path for path in (data / "downloads").rglob("*") if path.is_file()] == []
    # Photos that stay in their files are read from where they were unpacked.
    shutil.rmtree(folder)
    assert open_dataset(name).train().images.read(np.array([0])).shape == (1, *info.shape)


@pytest.mark.parametrize("name", ["fashion_mnist", "svhn", "flowers102", "pets", "food101"])
def test_what_is_not_there_is_named_with_the_way_to_get_it(data: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(
        NotHereError,
        match=rf"^{name} is not on this machine: .*\n  Fetch it: unlearnbench data fetch {name}, .* data add {name}",
    ):
        open_dataset(name)
    (tmp_path / "empty").mkdir()
    done = cli("data", "add", name, tmp_path / "empty")
    assert (done.code, done.err.startswith(f"{name}: no ")) == (2, True)


def test_damaged_files_are_named(data: Path, tmp_path: Path) -> None:
    folder = fashion_files(tmp_path / "x", packed=True)
    path = folder / "t10k-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-40], "cannot be read: "),
        (gzip.compress(gzip.decompress(whole)[:-1]), "not a whole file of images"),
        (gzip.compress(b"\0"), "not a whole file of images"),
    ):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=f"^{path}: {message}"):
            add("fashion_mnist", [folder])
    folder = svhn_files(tmp_path / "y")
    (folder / "test_32x32.mat").write_text("nothing")
    with pytest.raises(DatasetError, match=r"test_32x32\.mat: not a file of SVHN's images: "):
        add("svhn", [folder])
    folder = pet_files(tmp_path / "z")
    (folder / "images" / "Bengal_1.jpg").unlink()
    with pytest.raises(DatasetError, match=r"^pets: not added\n  .*Bengal_1\.jpg: missing$"):
        add("pets", [folder])
