"""Folders as users and systems leave them: read, said, or refused by their names."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_data import class_tree, write_image

from unlearnbench.datasets.add import FolderOptions, Listener, add
from unlearnbench.datasets.dataset import DatasetInfo
from unlearnbench.errors import DatasetError

pytest_plugins = ["support.data_fixtures"]
CLASSES = {"rose": 5, "tulip": 5}
USUAL = "(train, training; test, testing, val, valid, validation, eval)"


def added(folder: Path) -> tuple[DatasetInfo, list[str]]:
    """Add class folders and return the facts with what was said."""
    lines: list[str] = []
    info = add("image_folder", [folder], FolderOptions(side=8, replace=True), Listener(say=lines.append))
    return info, lines


def refused(folder: Path) -> list[str]:
    with pytest.raises(DatasetError) as caught:
        added(folder)
    return str(caught.value).splitlines()


@pytest.mark.parametrize("name", ["test", "testing", "val", "valid", "validation", "eval"])
def test_a_test_part_of_any_usual_name_is_read(data: Path, tmp_path: Path, name: str) -> None:
    class_tree(tmp_path / "x" / "train", CLASSES)
    class_tree(tmp_path / "x" / name, {"rose": 2, "tulip": 3}, salt=9)
    info, lines = added(tmp_path / "x")
    assert (info.train_counts, info.test_counts) == ((5, 5), (2, 3))
    assert lines == []


def test_two_test_parts_are_joined_with_a_word(data: Path, tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        class_tree(tmp_path / "x" / part, CLASSES, salt=number)
    info, lines = added(tmp_path / "x")
    assert info.test_counts == (10, 10)
    assert lines == ["default: the test part is test and val together"]


def test_a_folder_beside_the_parts_is_named_and_not_left_over(data: Path, tmp_path: Path) -> None:
    class_tree(tmp_path / "x" / "train", CLASSES)
    class_tree(tmp_path / "x" / "holdout", CLASSES)
    write_image(tmp_path / "x" / "val" / "a.png", 8, 8)
    assert refused(tmp_path / "x")[1:] == [
        f"  {tmp_path}/x/holdout: neither a training nor a test part {USUAL}; rename it or move it away",
        f"  {tmp_path}/x/val: holds no class folders; sort its images into val/CLASS, or move it away",
    ]


def test_the_flat_val_of_imagenet_is_told_what_to_do_with(data: Path, tmp_path: Path) -> None:
    class_tree(tmp_path / "x" / "train", CLASSES)
    write_image(tmp_path / "x" / "val" / "ILSVRC2012_val_00000001.JPEG", 8, 8)
    assert refused(tmp_path / "x")[1:] == [
        f"  {tmp_path}/x/val: holds ImageNet's images as distributed; sort them into folders by their WordNet ids first"
    ]


def test_hidden_folders_and_those_that_systems_write_are_no_classes(data: Path, tmp_path: Path) -> None:
    folder = class_tree(tmp_path / "x" / "flowers", CLASSES)
    for place in (tmp_path / "x", folder, folder / "rose"):
        write_image(place / ".ipynb_checkpoints" / "a.png", 8, 8)
        write_image(place / "__MACOSX" / "._a.png", 8, 8)
        (place / ".DS_Store").write_text("of the operating system")
    info, lines = added(tmp_path / "x")
    assert info.class_names == ("rose", "tulip")
    assert sum(info.train_counts) + sum(info.test_counts) == 10
    assert lines == []


def test_a_dangling_link_is_named(data: Path, tmp_path: Path) -> None:
    folder = class_tree(tmp_path / "x", CLASSES)
    (folder / "rose" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    told = (
        f"  {folder}/rose/gone.png: a link to {tmp_path}/nowhere.png, which is not there; remove it or bring that back"
    )
    assert refused(folder)[1:] == [told]
    with pytest.raises(DatasetError) as caught:
        add("image_folder", [folder])
    assert str(caught.value).splitlines()[1:] == [told]


def test_an_accented_class_is_the_same_in_both_of_its_spellings(data: Path, tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    class_tree(tmp_path / "x" / "train", {composed: 4, "tea": 4})
    class_tree(tmp_path / "x" / "test", {decomposed: 2, "tea": 2}, salt=1)
    info, _ = added(tmp_path / "x")
    assert info.class_names == (composed, "tea")
    assert info.test_counts == (2, 2)


def test_classes_that_differ_only_in_case_are_said(data: Path, tmp_path: Path) -> None:
    info, lines = added(class_tree(tmp_path / "x", {"Apple": 4, "apple": 4}))
    assert info.class_names == ("Apple", "apple")
    assert lines == ["default: the classes 'Apple' and 'apple' differ only in case, and count as two"]


def test_copies_across_the_parts_and_under_two_labels_are_counted(data: Path, tmp_path: Path) -> None:
    train, test = (class_tree(tmp_path / "x" / part, CLASSES, salt=n) for n, part in enumerate(("train", "test")))
    for number in range(3):
        shutil.copy(train / "rose" / f"rose_{number:03}.png", test / "rose" / f"copy_{number}.png")
    shutil.copy(train / "rose" / "rose_000.png", train / "tulip" / "rose.png")
    _, lines = added(tmp_path / "x")
    assert lines == [
        "default: 3 test images are in the training part too",
        "default: 1 image is equal to one of another class",
    ]


def test_copies_are_counted_in_images_that_stay_where_they_are_too(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unlearnbench.datasets.add.PACK_LIMIT_BYTES", 100)
    train, test = (class_tree(tmp_path / "x" / part, CLASSES, salt=n) for n, part in enumerate(("train", "test")))
    shutil.copy(train / "rose" / "rose_000.png", test / "rose" / "copy.png")
    _, lines = added(tmp_path / "x")
    assert lines == ["default: 1 test image is in the training part too"]


def test_twelve_bits_in_files_of_sixteen_are_said(data: Path, tmp_path: Path) -> None:
    stream = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "x" / label).mkdir(parents=True)
        for number in range(3):
            values = stream.integers(0, 4096, (8, 8)).astype(np.uint16)
            values[0, 0] = 4095
            Image.fromarray(values).save(tmp_path / "x" / label / f"{number}.png")
    _, lines = added(tmp_path / "x")
    assert lines == [
        "default: 6 images have 16-bit values up to 4,095 only, and come out nearly black; if they hold 12 bits, "
        "multiply them by 16 and add them again"
    ]


def test_names_that_are_no_text_are_named(data: Path, tmp_path: Path) -> None:
    folder = class_tree(tmp_path / "given", CLASSES)
    try:
        Path(os.fsdecode(os.fsencode(folder) + b"/G\xe4nse")).mkdir()
        (folder / "rose" / "rose_000.png").rename(os.fsdecode(os.fsencode(folder) + b"/rose/\xe4.png"))
    except OSError:
        pytest.skip("this file system has no such names")
    assert [line.strip() for line in refused(folder)[1:]] == [
        f"{folder}/G\\xe4nse: its name is not utf-8 text; rename it",
        f"{folder}/rose/\\xe4.png: its name is not utf-8 text; rename it",
    ]
