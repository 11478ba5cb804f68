"""Parquet files as the Hugging Face hub has them become a data set, and what does not fit is named with its column."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import cli
from support.tiny_data import pixels, png

from unlearnbench.datasets.add import FolderOptions, Listener, add
from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.datasets.parquet import table
from unlearnbench.errors import DatasetError

arrow = pytest.importorskip("pyarrow", reason="needs pip install 'unlearnbench[parquet]'")
parquet = pytest.importorskip("pyarrow.parquet")

pytest_plugins = ["support.data_fixtures"]

NAMES = ("cat", "dog", "owl")


def write(
    file: Path, labels: Sequence[Any], images: Sequence[Any] = (), names: Sequence[str] | None = NAMES, **more: Any
) -> Path:
    """Write a table as the hub's library does: images as bytes and path, class names in the schema's metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    cells = images or [{"bytes": image(file, row), "path": f"{row}.png"} for row in range(len(labels))]
    features: dict[str, Any] = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
    content = arrow.table({"image": cells, "label": list(labels), **more})
    if names:
        content = content.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    # Small row groups, so that more of them are read than are kept.
    parquet.write_table(content, file, row_group_size=2)
    return file


def image(file: Path, row: int) -> bytes:
    return png(8, 8, len(file.stem), row)


def refused(folder: Path, **options: Any) -> str:
    with pytest.raises(DatasetError) as caught:
        add("parquet", [folder], FolderOptions(**options))
    return str(caught.value)


def test_files_of_the_hub_s_library_keep_images_classes_and_parts(data: Path, tmp_path: Path) -> None:
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [2, 0, 1, 1, 0, 2, 0] * 2)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [1])
    held = write(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 2, 0])
    info = add("parquet", [tmp_path], FolderOptions("animals"))
    assert (info.name, info.class_names, info.shape) == ("animals", NAMES, (3, 8, 8))
    assert (info.train_counts, info.test_counts) == ((6, 5, 4), (1, 1, 1))
    test = open_dataset("parquet", {"source": "animals"}).test()
    assert test.labels.tolist() == [1, 2, 0]
    assert np.array_equal(test.images.read(np.array([2]))[0], pixels(8, 8, len(held.stem), 2).transpose(2, 0, 1))


def test_without_a_test_part_a_share_of_each_class_becomes_one(data: Path, tmp_path: Path) -> None:
    # Texts are classes in the order of the alphabet, and images can be plain bytes.
    labels = ["owl", "cat"] * 5
    write(tmp_path / "0000.parquet", labels, [png(8, 8, row) for row in range(10)], names=None)
    info = add("parquet", [tmp_path])
    assert (info.class_names, info.train_counts, info.test_counts) == (("cat", "owl"), (4, 4), (1, 1))
    assert add("parquet", [tmp_path]).revision == info.revision


def test_a_data_set_in_the_hub_s_cache_goes_by_its_name(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    place = tmp_path / "datasets--zoo--animals"
    missing = cli("data", "add", "parquet", "hub:zoo/animals")
    assert (missing.code, missing.err) == (
        2,
        f"hub:zoo/animals is not on this machine: nothing at {place / 'snapshots' / 'main'}\n"
        "  Fetch it: unlearnbench data fetch hub:zoo/animals\n",
    )
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("0f1e")
    write(place / "snapshots" / "0f1e" / "data" / "train.parquet", [0, 1, 2] * 2)
    done = cli("data", "add", "parquet", "hub:zoo/animals", "--as", "zoo")
    assert done.out.startswith("zoo: 3 classes (cat, dog, owl), 3 training and 3 test images of 3x8x8, revision ")
    assert done.out.endswith(", from hub:zoo/animals@0f1e\n")
    assert "parquet zoo" in cli("data", "list").out


def test_an_unclear_column_has_to_be_named(data: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "a.parquet", [0, 1] * 2, names=None, kind=["x", "y"] * 2)
    content = parquet.read_table(file).rename_columns(["image", "number", "kind"])
    parquet.write_table(content, file)
    assert refused(tmp_path) == (
        f"parquet: not added\n  {file}: number, kind could each be the label; its columns: image, number, kind\n"
        "  Name the right one: --label-column COLUMN"
    )
    assert refused(tmp_path, label_column="knd") == (
        f"parquet: not added\n  {file}: no column 'knd'\n  Did you mean 'kind'? Valid: image, kind, number"
    )
    assert add("parquet", [tmp_path], FolderOptions(label_column="kind")).class_names == ("x", "y")


def test_rows_that_do_not_fit_are_named_with_file_and_column(data: Path, tmp_path: Path) -> None:
    file = write(tmp_path / "train.parquet", [0, 1, 2, 3])
    assert refused(tmp_path) == (
        f"parquet: not added\n  {file}: column 'label': row 3 has class 3, where the schema names 3 classes"
    )
    write(file, [0, 1, -1, None])
    assert f"{file}: column 'label': 2 of 4 rows have no class, the first is row 2; leave this file out" in refused(
        tmp_path
    )
    cells = [{"bytes": png(8, 8, row), "path": ""} for row in range(6)]
    write(file, [0, 1, 2] * 2, [*cells[:4], {"bytes": None, "path": "x.png"}, {"bytes": b"none", "path": ""}])
    assert refused(tmp_path) == (
        "parquet: not added\n"
        f"  {file}: column 'image': row 4 has no image, only the path 'x.png'; write the table with its images in it\n"
        f"  {file}: column 'image': row 5: not an image that can be read; remove it or move it out"
    )
    other = write(tmp_path / "test.parquet", [0, 1, 2], names=("cat", "dog", "rat"))
    assert refused(tmp_path) == (f"parquet: not added\n  {file}: column 'label': other class names than {other} has")


def test_files_and_parts_that_do_not_fit_are_named(data: Path, tmp_path: Path) -> None:
    assert refused(tmp_path) == f"parquet: not added\n  no file *.parquet in {tmp_path}"
    bad = tmp_path / "bad.parquet"
    bad.write_bytes(b"PAR1, or so it says")
    assert refused(tmp_path).startswith(f"parquet: not added\n  {bad}: not a parquet file that can be read: ")
    bad.unlink()
    write(tmp_path / "train.parquet", [0, 1, 2])
    held = write(tmp_path / "test.parquet", [0, 1, 1])
    assert refused(tmp_path) == "parquet: not added\n  no test image of 1 of 3 classes: owl"
    write(held, [0, 1, 2])
    more = write(tmp_path / "more.parquet", [0])
    assert refused(tmp_path) == (
        f"parquet: not added\n  {more}: neither a training nor a test part by its name; rename it or move it away"
    )


def test_a_table_too_large_to_be_packed_says_what_helps(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2] * 2)
    monkeypatch.setattr("unlearnbench.datasets.add.PACK_LIMIT_BYTES", 400)
    assert refused(tmp_path) == "parquet: too large to be packed as 8x8; choose a smaller square with --side"
    lines: list[str] = []
    assert add("parquet", [tmp_path], FolderOptions(side=4), Listener(say=lines.append)).shape == (3, 4, 4)


def test_without_pyarrow_the_extra_is_named(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "train.parquet", [0, 1, 2])

    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(table, "import_module", missing)
    assert "pyarrow is not installed\n  pip install 'unlearnbench[parquet]'" in refused(tmp_path)
