"""The readers: cifar100, cub200, imagenet1k, image_folder, and a data set of another distribution."""

from __future__ import annotations

import functools
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_data import (
    CIFAR_CLASSES,
    cifar_folders,
    cifar_official,
    class_tree,
    cub_folder,
    imagenet_tree,
    pixels,
    small_imagenet,
    write_image,
)

from unlearnbench.datasets.add import FolderOptions, Listener, add
from unlearnbench.datasets.builtin import cifar100, cub200, imagenet1k
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import DatasetError
from unlearnbench.registry import entry_points

pytest_plugins = ["support.data_fixtures"]


def whole(message: str) -> str:
    return f"^{re.escape(message)}$"


def test_cifar100_from_class_folders_pairs_images_and_labels(data: Path, small_cifar: None, tmp_path: Path) -> None:
    add("cifar100", [cifar_folders(tmp_path / "given")])
    dataset = open_dataset("cifar100")
    assert dataset.info.class_names == CIFAR_CLASSES
    assert dataset.info.train_counts == (6,) * 4
    assert dataset.info.shape == (3, 32, 32)
    test = dataset.test()
    assert test.labels.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert np.array_equal(test.images.read(np.array([5]))[0], pixels(32, 32, 2, 2, 1).transpose(2, 0, 1))


def test_official_files_and_class_folders_give_the_same_revision(data: Path, small_cifar: None, tmp_path: Path) -> None:
    folders = add("cifar100", [cifar_folders(tmp_path / "folders")])
    images = open_dataset("cifar100").train().images.read(np.arange(24))
    assert add("cifar100", [cifar_official(tmp_path / "x" / "cifar-100-python")]) == folders
    assert np.array_equal(open_dataset("cifar100").train().images.read(np.arange(24)), images)
    assert add("cifar100", [tmp_path / "x"]) == folders


def test_mean_and_deviation_are_those_of_the_training_images(data: Path, small_cifar: None, tmp_path: Path) -> None:
    info = add("cifar100", [cifar_folders(tmp_path / "given")])
    train = open_dataset("cifar100").train().images.read(np.arange(24)) / 255.0
    assert np.allclose(info.mean, train.mean(axis=(0, 2, 3)), atol=1e-6)
    assert np.allclose(info.std, train.std(axis=(0, 2, 3)), atol=1e-6)


def test_a_class_may_be_called_train(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("bear", "test", "train")
    small = functools.partial(cifar100.find, classes=3, train_per_class=2, test_per_class=1)
    monkeypatch.setattr(cifar100, "find", small)
    given = cifar_folders(tmp_path / "x" / "cifar-100", 2, 1, names)
    info = add("cifar100", [given])
    assert info.class_names == names
    assert add("cifar100", [tmp_path / "x"]) == info
    assert add("image_folder", [given]).class_names == names
    assert add("image_folder", [given / "train"], FolderOptions(replace=True)).class_names == names


@pytest.mark.parametrize("change", ["image", "label"])
def test_the_revision_changes_with_an_image_or_a_label(
    data: Path, small_cifar: None, tmp_path: Path, change: str
) -> None:
    given = cifar_folders(tmp_path / "given")
    before = add("cifar100", [given]).revision
    if change == "image":
        write_image(given / "train" / "cup" / "cup_002.png", 32, 32, 99)
    else:
        one, other = given / "train" / "cup" / "cup_002.png", given / "train" / "bear" / "bear_002.png"
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    assert add("cifar100", [given]).revision != before


def test_a_tiny_cifar_is_refused_with_each_number(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        cifar100.find([cifar_folders(tmp_path / "given")])
    lines = str(caught.value).splitlines()
    assert lines[:3] == [
        "cifar100: not added",
        "  4 classes where 100 belong",
        "  class 'apple' has 6 training images where 500 belong",
    ]
    assert lines[-1] == "  class 'worm' has 2 test images where 100 belong"


def test_official_files_that_would_run_code_are_refused(tmp_path: Path) -> None:
    given = cifar_official(tmp_path / "given")
    (given / "meta").write_bytes(pickle.dumps({"fine_label_names": Path}))
    with pytest.raises(DatasetError, match=whole(f"{given}/meta: not one of CIFAR's files: it asks for pathlib.Path")):
        cifar100.find([given])


def test_official_files_without_file_names_are_refused(tmp_path: Path) -> None:
    given = cifar_official(tmp_path / "given")
    (given / "test").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8), "fine_labels": [0]}))
    with pytest.raises(DatasetError, match=whole(f"{given}/test: not one of CIFAR's files: 'filenames'")):
        cifar100.find([given])


def test_a_folder_without_cifar100_is_named(tmp_path: Path) -> None:
    expected = (
        f"cifar100: neither the official files meta, train, test nor folders train/CLASS and test/CLASS in {tmp_path}"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        cifar100.find([tmp_path])


def test_a_class_missing_in_the_test_part_is_named(tmp_path: Path) -> None:
    given = cifar_folders(tmp_path / "given")
    (given / "test" / "cup").rename(given / "test" / "mug")
    expected = (
        "cifar100: not added\n  class 'cup' has no folder in the test part\n"
        "  class 'mug' has no folder in the training part"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        cifar100.find([given])


def test_an_empty_class_is_named(tmp_path: Path) -> None:
    given = cifar_folders(tmp_path / "given")
    for file in (given / "train" / "cup").iterdir():
        file.unlink()
    with pytest.raises(
        DatasetError, match=whole(f"cifar100: not added\n  {given}/train/cup: class 'cup' has no image")
    ):
        cifar100.find([given])


def test_cub200_is_joined_on_the_image_id(data: Path, small_cub: None, tmp_path: Path) -> None:
    given = cub_folder(tmp_path / "CUB_200_2011")
    assert not (given / "images.txt").read_text().startswith("1 ")
    info = add("cub200", [tmp_path])
    assert info.class_names[:2] == ("001.Bird_1", "002.Bird_2")
    assert info.shape == (3, 256, 256)
    assert set(info.train_counts) == {3}
    train, test = open_dataset("cub200").train(), open_dataset("cub200").test()
    # Image 4 * label + number + 1 is number `number` of class `label`; the first three of four are training images.
    assert train.ids.tolist() == [number for number in range(1, 97) if number % 4 != 0]
    assert test.labels.tolist() == list(range(24))
    row = train.ids.tolist().index(4 * 7 + 2)
    from torchvision.transforms import CenterCrop, Resize

    expected = CenterCrop(256)(Resize(256)(Image.fromarray(pixels(20, 30, 8, 1))))
    assert np.array_equal(train.images.read(np.array([row]))[0], np.asarray(expected).transpose(2, 0, 1))
    assert train.labels[row] == 7


def test_a_tiny_cub_is_refused_with_each_number(tmp_path: Path) -> None:
    expected = (
        "cub200: not added\n  24 classes where 200 belong\n  72 training images where 5,994 belong\n"
        "  24 test images where 5,794 belong"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        cub200.find([cub_folder(tmp_path / "given")])


def test_cub_lists_that_do_not_fit_each_other_are_named(tmp_path: Path) -> None:
    given = cub_folder(tmp_path / "given", classes=2)
    labels = given / "image_class_labels.txt"
    labels.write_text(re.sub(r"(?m)^3 1\n", "99 1\n", labels.read_text()) + "oops\n7 2\n")
    (given / "images" / "002.Bird_2" / "Bird_2_0.png").unlink()
    with pytest.raises(DatasetError) as caught:
        cub200.find([given])
    assert str(caught.value).splitlines() == [
        "cub200: not added",
        f"  {labels}:9: 'oops' is not a number and a value",
        f"  {labels}:10: 7 stands there twice",
        f"  {labels}: no line for image 3",
        f"  {labels}: image 99 is not in images.txt",
        f"  {given}/images/002.Bird_2/Bird_2_0.png: missing",
    ]


def test_a_bird_that_is_neither_for_training_nor_a_test_is_named(tmp_path: Path) -> None:
    given = cub_folder(tmp_path / "given", classes=2)
    split = given / "train_test_split.txt"
    split.write_text(re.sub(r"(?m)^3 \d$", "3 2", split.read_text()))
    expected = f"cub200: not added\n  {split}: image 3 is '2', not 1 (training) or 0 (test)"
    with pytest.raises(DatasetError, match=whole(expected)):
        cub200.find([given])


def test_a_bird_without_test_image_is_named(tmp_path: Path) -> None:
    given = cub_folder(tmp_path / "given", classes=2)
    split = given / "train_test_split.txt"
    split.write_text(re.sub(r"(?m)^8 0", "8 1", split.read_text()))
    with pytest.raises(DatasetError, match=whole("cub200: not added\n  class '002.Bird_2' has no test image")):
        cub200.find([given])


def test_a_folder_without_cub_is_named(tmp_path: Path) -> None:
    expected = f"cub200: no images.txt in {tmp_path}; give the folder CUB_200_2011 or its archive"
    with pytest.raises(DatasetError, match=whole(expected)):
        cub200.find([tmp_path])


def test_imagenet_is_indexed_and_decoded_when_read(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_imagenet(monkeypatch)
    given = imagenet_tree(tmp_path / "ILSVRC")
    info = add("imagenet1k", [given])
    assert info.class_names == ("n00000000", "n00000001", "n00000002", "n00000003")
    assert info.shape == (3, 36, 36)
    assert not (data / "imagenet1k" / "images.npy").exists()
    test = open_dataset("imagenet1k").test()
    from torchvision.transforms import CenterCrop, Resize

    file = given / "val" / "n00000002" / "n00000002_val_0.JPEG"
    expected = CenterCrop(36)(Resize(36)(Image.open(file)))
    assert np.array_equal(test.images.read(np.array([2]))[0], np.asarray(expected).transpose(2, 0, 1))
    assert test.labels.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("change", ["content", "gone"])
def test_an_indexed_file_that_changed_is_named_when_it_is_read(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    small_imagenet(monkeypatch)
    file = imagenet_tree(tmp_path / "given") / "train" / "n00000001" / "n00000001_train_2.JPEG"
    add("imagenet1k", [tmp_path / "given"])
    images = open_dataset("imagenet1k").train().images
    if change == "content":
        write_image(file, 40, 50, 99)
        what = "is not the file that was added"
    else:
        file.unlink()
        what = "cannot be read: No such file or directory"
    images.read(np.array([0, 4]))
    with pytest.raises(
        DatasetError,
        match=whole(f"imagenet1k: {file} {what}\n  Bring it back, or add the data set again: unlearnbench data add"),
    ):
        images.read(np.array([0, 5]))


def test_the_revision_of_an_index_changes_with_an_image(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_imagenet(monkeypatch)
    given = imagenet_tree(tmp_path / "given")
    before = add("imagenet1k", [given]).revision
    assert add("imagenet1k", [given]).revision == before
    write_image(given / "val" / "n00000001" / "n00000001_val_0.JPEG", 40, 50, 99)
    assert add("imagenet1k", [given]).revision != before


def test_a_tiny_imagenet_is_refused_with_each_number(tmp_path: Path) -> None:
    expected = (
        "imagenet1k: not added\n  4 classes where 1,000 belong\n  12 training images where 1,281,167 belong\n"
        "  4 test images where 50,000 belong"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        imagenet1k.find([imagenet_tree(tmp_path / "given")])


def test_imagenet_without_validation_images_is_named(tmp_path: Path) -> None:
    given = imagenet_tree(tmp_path / "given", test=0)
    with pytest.raises(DatasetError) as caught:
        imagenet1k.find([given])
    assert str(caught.value).splitlines()[:2] == [
        "imagenet1k: not added",
        f"  no folder val in {given}; it holds one folder for each WordNet id",
    ]


def test_validation_images_that_are_not_sorted_are_named(tmp_path: Path) -> None:
    given = imagenet_tree(tmp_path / "given")
    file = write_image(given / "val" / "ILSVRC2012_val_00000001.JPEG", 40, 40)
    with pytest.raises(DatasetError) as caught:
        imagenet1k.find([given])
    expected = f"imagenet1k: not added\n  {file}: a file beside the class folders; move it into one, or away"
    assert str(caught.value) == expected


def test_image_folders_are_added_under_names(data: Path, tmp_path: Path) -> None:
    flowers = class_tree(tmp_path / "flowers", {"rose": 10, "tulip": 5})
    cars = class_tree(tmp_path / "cars" / "train", {"bus": 2, "taxi": 3, "van": 4}).parent
    class_tree(cars / "test", {"bus": 1, "taxi": 1, "van": 1}, salt=5)
    add("image_folder", [flowers], FolderOptions("my-flowers"))
    add("image_folder", [cars], FolderOptions("cars"))
    info = open_dataset("image_folder", {"source": "my-flowers"}).info
    assert (info.name, info.class_names) == ("my-flowers", ("rose", "tulip"))
    assert (info.train_counts, info.test_counts) == ((8, 4), (2, 1))
    assert open_dataset("image_folder", {"source": "cars"}).info.train_counts == (2, 3, 4)


def test_a_split_without_test_part_is_the_same_every_time(data: Path, tmp_path: Path) -> None:
    flowers = class_tree(tmp_path / "flowers", {"rose": 10, "tulip": 5})
    first = add("image_folder", [flowers], FolderOptions("a"))
    moved = flowers.rename(tmp_path / "elsewhere")
    second = add("image_folder", [moved], FolderOptions("b"))
    assert first.revision == second.revision
    train, test = (
        open_dataset("image_folder", {"source": "a"}).train(),
        open_dataset("image_folder", {"source": "a"}).test(),
    )
    every = {image.tobytes() for part in (train, test) for image in part.images.read(np.arange(len(part.labels)))}
    assert len(every) == 15


def test_a_class_with_one_image_needs_a_test_part(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "given", {"one": 1, "two": 2})
    expected = (
        "image_folder: not added\n  class 'one' of image_folder has 1 image; without a test part it needs 2 or more"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        add("image_folder", [given])


def test_a_test_part_that_leaves_a_class_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "given", {"one": 10, "two": 300})
    expected = (
        "image_folder: not added\n  class 'one' of image_folder: a test part of 0.99 leaves none of its 10 images for "
        "training; give a smaller --test-share"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        add("image_folder", [given], FolderOptions(test_share=0.99))


def test_the_size_of_most_images_is_kept_and_what_differs_is_said(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "given", {"a": 3, "b": 3}, side=9)
    again = FolderOptions(replace=True)
    lines: list[str] = []
    listener = Listener(say=lines.append)
    assert add("image_folder", [given], again, listener).shape == (3, 9, 9)
    assert lines == []
    wide = write_image(given / "a" / "wide.png", 9, 12)
    assert add("image_folder", [given], again, listener).shape == (3, 9, 9)
    assert lines[0] == f"default: 1 of 7 images is not 9x9 and is resized and cropped to it: {wide} (12x9)"
    for number in range(6):
        write_image(given / "b" / f"{number}.png", 20 + number, 30)
    lines.clear()
    assert add("image_folder", [given], again, listener).shape == (3, 256, 256)
    assert lines[0] == (
        "default: images have sizes from 9x9 to 30x25: each is resized and cropped to 256x256; "
        "--side chooses another square"
    )
    assert add("image_folder", [given], FolderOptions(side=16, replace=True)).shape == (3, 16, 16)


def test_images_of_one_size_that_is_no_square_keep_it(data: Path, tmp_path: Path) -> None:
    for label in "ab":
        for number in range(3):
            write_image(tmp_path / "given" / label / f"{number}.png", 8, 12, number)
    write_image(tmp_path / "given" / "a" / "large.png", 16, 30)
    assert add("image_folder", [tmp_path / "given"]).shape == (3, 8, 12)


def test_every_file_that_is_no_image_is_named_at_once(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "given", {"a": 3, "b": 3})
    (given / "a" / "notes.txt").write_text("hello")
    (given / "b" / "cut.png").write_bytes(write_image(tmp_path / "x.png", 60, 60).read_bytes()[:500])
    write_image(given / "b" / "dot.png", 1, 1)
    (given / "b" / ".DS_Store").write_text("of the operating system")
    with pytest.raises(DatasetError) as caught:
        add("image_folder", [given], FolderOptions(side=8))
    lines = str(caught.value).splitlines()
    assert lines[0] == "default: not added"
    assert sorted(lines[1:]) == [
        f"  {given}/a/notes.txt: not an image that can be read; remove it or move it out",
        f"  {given}/b/cut.png: damaged image: image file is truncated",
        f"  {given}/b/dot.png: 1x1 pixels show nothing; remove it or replace it",
    ]


def test_a_folder_within_a_class_is_named(data: Path, tmp_path: Path) -> None:
    given = class_tree(tmp_path / "given", {"a": 3, "b": 3})
    write_image(given / "a" / "more" / "x.png", 8, 8)
    expected = f"image_folder: not added\n  {given}/a/more: a folder within a class; a class holds files only"
    with pytest.raises(DatasetError, match=whole(expected)):
        add("image_folder", [given])


def test_a_folder_without_classes_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "given").mkdir()
    with pytest.raises(DatasetError, match=whole("image_folder: not added\n  no class folder was found")):
        add("image_folder", [tmp_path / "given"])


def test_an_unknown_source_names_the_nearest_one(data: Path, tmp_path: Path) -> None:
    add("image_folder", [class_tree(tmp_path / "given", {"a": 3, "b": 3})], FolderOptions("flowers"))
    expected = (
        "no images were added as 'flower'\n  Did you mean 'flowers'? Valid: flowers\n"
        "  Add them: unlearnbench data add image_folder PATH --as flower"
    )
    with pytest.raises(DatasetError, match=whole(expected)):
        open_dataset("image_folder", {"source": "flower"})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "cifar100",
            "cifar100 is not on this machine: nothing at {data}/cifar100 (169 MB to fetch, 184 MB on disk)\n"
            "  Fetch it: unlearnbench data fetch cifar100, or run with --download; or add your own copy: "
            "unlearnbench data add cifar100 PATH...",
        ),
        (
            "cub200",
            "cub200 is not on this machine: nothing at {data}/cub200 (1.2 GB to fetch, 2.3 GB on disk)\n"
            "  Fetch it: unlearnbench data fetch cub200, or run with --download; or add your own copy: "
            "unlearnbench data add cub200 PATH...",
        ),
        (
            "imagenet1k",
            "imagenet1k is not on this machine: nothing at {data}/imagenet1k (about 150 GB, which stay in a folder of "
            "yours)\n"
            "  It may not be passed on: get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar from image-net.org,\n"
            "  sort them into train/<wnid>/ and val/<wnid>/, then: unlearnbench data add imagenet1k PATH",
        ),
    ],
)
def test_a_missing_data_set_says_how_large_it_is_and_how_to_get_it(data: Path, name: str, expected: str) -> None:
    with pytest.raises(DatasetError, match=whole(expected.format(data=data))):
        open_dataset(name)


def test_a_data_set_of_another_distribution_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_data.py").write_text(
        "from __future__ import annotations\n"
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from unlearnbench.datasets.dataset import ArrayImages, Dataset, DatasetInfo, Part\n"
        "def stripes(folder: Path, *, classes: int = 2) -> Dataset:\n"
        "    counts = (2,) * classes, (1,) * classes\n"
        "    info = DatasetInfo('stripes', 'r1', tuple('ab'[:classes]), *counts, (1, 4, 4), (0.5,), (0.5,))\n"
        "    def part(n):\n"
        "        labels = np.repeat(np.arange(classes), n)\n"
        "        return Part(ArrayImages(np.zeros((len(labels), 1, 4, 4), np.uint8)), labels, np.arange(len(labels)))\n"
        "    return Dataset(info, train=lambda: part(2), test=lambda: part(1))\n"
    )
    folder = tmp_path / "their_data-1.2.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: their-data\nVersion: 1.2\n")
    (folder / "entry_points.txt").write_text("[unlearnbench.datasets]\nstripes = their_data:stripes\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    entry_points._found.cache_clear()
    try:
        plugin = entry_points.find("datasets", "stripes")
        assert (plugin.distribution, plugin.distribution_version) == ("their-data", "1.2")
        assert open_dataset("stripes", {"classes": 2}).train().labels.tolist() == [0, 0, 1, 1]
    finally:
        entry_points._found.cache_clear()
        sys.modules.pop("their_data", None)


def test_readers_import_neither_torch_nor_torchvision() -> None:
    import subprocess

    code = (
        "import sys, unlearnbench.datasets.add, unlearnbench.experiment.assets; "
        "print({'torch', 'torchvision'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
