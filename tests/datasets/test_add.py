from __future__ import annotations

import io
import re
import shutil
import tarfile
import zipfile
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
from support.tiny_data import cifar_folders, class_tree, imagenet_tree, write_image

from unlearnbench import machine
from unlearnbench.datasets import download, storage
from unlearnbench.datasets.add import FolderOptions, Listener, add
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.datasets.download import unpack
from unlearnbench.datasets.storage import images_elsewhere
from unlearnbench.errors import DatasetError

pytest_plugins = ["support.data_fixtures"]


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


def tarred(folder: Path, path: Path) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(folder, folder.name)
    return path


def test_several_archives_add_up_to_one_data_set(data: Path, small_cifar: None, tmp_path: Path) -> None:
    given = cifar_folders(tmp_path / "cifar-100")
    direct = add("cifar100", [given])
    shutil.move(given / "test", tmp_path / "kept")
    first = tarred(given, tmp_path / "train.tar.gz")
    shutil.rmtree(given / "train")
    shutil.move(tmp_path / "kept", given / "test")
    second = tarred(given, tmp_path / "test.tar.gz")
    said: list[str] = []
    assert add("cifar100", [first, second], listener=Listener(said.append)) == direct
    assert said == [f"unpacking {first}", f"unpacking {second}"]


def test_an_image_folder_comes_out_of_a_zip_archive(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "flowers", {"rose": 5, "tulip": 5})
    path = Path(shutil.make_archive(str(tmp_path / "flowers"), "zip", tmp_path, "flowers"))
    assert add("image_folder", [path]).revision == add("image_folder", [given]).revision


def test_an_unknown_data_set_names_the_nearest_one(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        add("cifar1000", [tmp_path])
    first, second = str(caught.value).splitlines()
    assert (first, second.partition("?")[0]) == ("'cifar1000' cannot be added", "  Did you mean 'cifar100'")


def test_a_name_that_is_a_path_is_refused(data: Path, tmp_path: Path) -> None:
    expected = "--as ../x: a name is letters, digits, dots, dashes and underscores"
    with pytest.raises(DatasetError, match=whole(expected)):
        add("image_folder", [tmp_path], FolderOptions("../x"))


def test_a_path_that_is_not_there_is_named(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=whole(f"{tmp_path}/gone: no such file or folder")):
        add("cifar100", [tmp_path / "gone"])


def test_a_file_that_is_no_archive_is_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "x.tgz").write_text("hello")
    with pytest.raises(DatasetError, match=whole(f"{tmp_path}/x.tgz: neither a folder nor a tar or zip archive")):
        add("cifar100", [tmp_path / "x.tgz"])


def test_a_truncated_archive_is_named(data: Path, tmp_path: Path) -> None:
    path = tarred(class_tree(tmp_path / "flowers", {"rose": 50}, side=30), tmp_path / "x.tgz")
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(DatasetError, match=f"^{re.escape(str(path))}: damaged archive: "):
        add("image_folder", [path])
    assert not (data / "image_folder" / "default").exists()


def test_an_archive_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("../escaped.txt")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"hi"))
    (tmp_path / "inside").mkdir()
    with pytest.raises(
        DatasetError, match=f"^{re.escape(str(tmp_path / 'x.tar'))}: refused: .*outside the destination"
    ):
        unpack(tmp_path / "x.tar", tmp_path / "inside")
    assert not (tmp_path / "escaped.txt").exists()


def bomb(path: Path, kind: str) -> None:
    """Write an archive of half a megabyte or less that unpacks to 200 MB."""
    zeros = path.with_name("zeros")
    with zeros.open("wb") as file:
        file.truncate(200_000_000)
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.write(zeros, "a/0.png")
    else:
        with tarfile.open(path, "w:gz") as tar:
            tar.add(zeros, "a/0.png")
    zeros.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_unpacks_to_far_more_than_its_size_is_refused(tmp_path: Path, kind: str) -> None:
    archive, inside = tmp_path / f"x.{kind}", tmp_path / "inside"
    inside.mkdir()
    bomb(archive, kind)
    with pytest.raises(DatasetError) as caught:
        unpack(archive, inside)
    assert str(caught.value) == (
        f"{archive}: refused: it unpacks to more than 10 times its size\n"
        "  If it is to be trusted, unpack it yourself and add the folder"
    )
    assert sum(file.stat().st_size for file in inside.rglob("*.png")) == 0


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    archive, inside = tmp_path / "x.zip", tmp_path / "inside"
    inside.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.txt", "text")
    content = bytearray(archive.read_bytes())
    # This bit of the flags, in the file's own header and in the directory, says that the content is encrypted.
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.find(header) + flags] |= 1
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match=r"x\.zip: it is encrypted; unpack it yourself"):
        unpack(archive, inside)


def test_a_zip_archive_cannot_lead_out_of_its_folder(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../escaped.txt", "hi")
    (tmp_path / "inside").mkdir()
    unpack(tmp_path / "x.zip", tmp_path / "inside")
    assert not (tmp_path / "escaped.txt").exists()


@pytest.mark.parametrize("place", ["while packing", "before the rename"])
def test_an_interrupted_add_leaves_the_data_set_as_it_was(
    data: Path, small_cifar: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    given = cifar_folders(tmp_path / "given")
    before = add("cifar100", [given])
    write_image(given / "train" / "cup" / "cup_002.png", 32, 32, 99)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    if place == "while packing":
        monkeypatch.setattr(storage, "_write_facts", interrupt)
    else:
        monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        add("cifar100", [given])
    monkeypatch.undo()
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(data))
    assert open_dataset("cifar100").info == before
    assert sorted(file.name for file in data.iterdir()) == [".cifar100.lock", "cifar100"]


def test_what_a_killed_add_left_is_no_data_set_and_the_next_one_removes_it(
    data: Path, small_cifar: None, tmp_path: Path
) -> None:
    left = data / ".cifar100.adding-killed" / "new"
    left.mkdir(parents=True)
    (left / "images.npy").write_bytes(b"half")
    with pytest.raises(DatasetError, match=r"^cifar100 is not on this machine: "):
        open_dataset("cifar100")
    add("cifar100", [cifar_folders(tmp_path / "given")])
    assert not left.exists()


def test_a_full_disk_is_told_before_packing(
    data: Path, small_cifar: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda place: usage(0, 0, 1000))
    with pytest.raises(DatasetError) as caught:
        add("cifar100", [cifar_folders(tmp_path / "given")])
    assert re.fullmatch(
        rf"cifar100 needs 98 kB at {data}/\.cifar100\.adding-\w+/new, where 1\.0 kB are free\n"
        r"  Make room, or set UNLEARNBENCH_DATA to a folder on a larger disk",
        str(caught.value),
    )
    assert not (data / "cifar100").exists()


def test_a_disk_that_fills_up_while_packing_is_named(
    data: Path, small_cifar: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("unlearnbench.datasets.add.pack", full)
    with pytest.raises(DatasetError, match=r"^cifar100: cannot be written to .*: No space left on device$"):
        add("cifar100", [cifar_folders(tmp_path / "given")])
    assert not (data / "cifar100").exists()


def test_an_image_of_another_size_is_no_cifar(data: Path, small_cifar: None, tmp_path: Path) -> None:
    given = cifar_folders(tmp_path / "given")
    file = write_image(given / "test" / "cup" / "cup_001.png", 32, 40)
    with pytest.raises(DatasetError, match=whole(f"cifar100: not added\n  {file}: 40x32 pixels where 32x32 belong")):
        add("cifar100", [given])


def test_damage_of_a_prepared_data_set_is_named(data: Path, small_cifar: None, tmp_path: Path) -> None:
    add("cifar100", [cifar_folders(tmp_path / "given")])
    images = data / "cifar100" / "images.npy"
    size = images.stat().st_size
    images.write_bytes(images.read_bytes()[:1000])
    again = "\n  Add the data set again: unlearnbench data add, or data fetch"
    with pytest.raises(DatasetError, match=whole(f"{images}: damaged: 1000 bytes, not {size}{again}")):
        open_dataset("cifar100")
    images.unlink()
    with pytest.raises(DatasetError, match=whole(f"{images}: missing{again}")):
        open_dataset("cifar100")
    facts = data / "cifar100" / "facts.json"
    facts.write_text(facts.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(DatasetError, match=whole(f"{facts.parent}: prepared in format 0, this version reads 1{again}")):
        open_dataset("cifar100")
    facts.write_text("{")
    with pytest.raises(DatasetError, match=rf"^{re.escape(str(facts))}: not readable: "):
        open_dataset("cifar100")


def test_a_large_image_folder_is_indexed_where_it_lies(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = class_tree(tmp_path / "given", {"a": 5, "b": 5})
    packed = add("image_folder", [given], FolderOptions(side=16))
    images = open_dataset("image_folder").train().images.read(np.arange(8))
    monkeypatch.setattr("unlearnbench.datasets.add.PACK_LIMIT_BYTES", 100)
    indexed = add("image_folder", [given], FolderOptions(side=16, replace=True))
    assert (indexed.class_names, indexed.train_counts) == (packed.class_names, packed.train_counts)
    assert images_elsewhere() == [given.resolve()]
    assert not (data / "image_folder" / "default" / "images.npy").exists()
    assert np.array_equal(open_dataset("image_folder").train().images.read(np.arange(8)), images)


@pytest.mark.parametrize("name", ["image_folder", "imagenet1k"])
def test_images_that_stay_where_they_are_cannot_come_from_an_archive(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("unlearnbench.datasets.add.PACK_LIMIT_BYTES", 100)
    given = (
        class_tree(tmp_path / "given", {"a": 5, "b": 5}) if name == "image_folder" else imagenet_tree(tmp_path / "x")
    )
    expected = {
        "image_folder": "image_folder: too large to be packed; unpack the archive yourself and add the folder",
        "imagenet1k": "imagenet1k: its images stay where they are; unpack the archive and add the folder",
    }
    with pytest.raises(DatasetError, match=whole(expected[name])):
        add(name, [tarred(given, tmp_path / "x.tgz")])


def test_a_data_folder_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("UNLEARNBENCH_DATA", str(tmp_path / "file"))
    expected = f"{tmp_path}/file: the data folder cannot be written: File exists\n  Set UNLEARNBENCH_DATA to another"
    with pytest.raises(DatasetError, match=whole(expected)):
        add("cifar100", [tmp_path])


def test_is_archive_looks_at_the_content(tmp_path: Path) -> None:
    path = tarred(class_tree(tmp_path / "x", {"a": 1}), tmp_path / "no-suffix")
    assert download.is_archive(path)
    assert not download.is_archive(tmp_path)
