"""Feature files as strangers may have made them: refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.feature_files import fill

from unlearnbench.errors import InvalidFileError
from unlearnbench.metrics.features import open_features


def write(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        fill(file, np.eye(4), [0, 1, 2, 3], forget=[3], num_classes=4)
    return path


def external_link(file: h5py.File) -> None:
    del file["test/features"]
    file["test/features"] = h5py.ExternalLink("/etc/passwd", "/x")


def linked_group(file: h5py.File) -> None:
    file.move("limited", "elsewhere")
    file["limited"] = h5py.SoftLink("/elsewhere")


def external_storage(file: h5py.File) -> None:
    del file["test/logits"]
    file.create_dataset("test/logits", (4, 4), "float32", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 4), "float32")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 4))
    del file["test/logits"]
    file.create_virtual_dataset("test/logits", layout)


def endless(file: h5py.File) -> None:
    del file["test/features"]
    file.create_dataset("test/features", (10**9, 4), "float32", chunks=(1024, 4))


def bomb(file: h5py.File) -> None:
    del file["test/features"]
    file.create_dataset("test/features", data=np.zeros((10**6, 16)), compression="gzip")


def words(file: h5py.File) -> None:
    del file["output_classes"]
    file["output_classes"] = np.array([b"a", b"b"])


def fewer_labels(file: h5py.File) -> None:
    del file["test/labels"]
    file["test/labels"] = np.arange(3)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (external_link, "test/features is a link"),
        (linked_group, "limited/features is a link"),
        (external_storage, "test/logits lies in another file"),
        (virtual, "test/logits lies in another file"),
        (endless, "test/features has the shape (1000000000, 4), and 0 bytes in the file"),
        (bomb, "test/features has the shape (1000000, 16), and "),
        (words, "output_classes is no array of numbers"),
        (fewer_labels, "test/labels has 3 rows, and test/features 4"),
    ],
)
def test_a_file_that_reaches_out_or_has_no_end_is_refused(
    tmp_path: Path, change: Callable[[h5py.File], None], fault: str
) -> None:
    path = write(tmp_path / "features.h5")
    with open_features(path) as features:
        assert features.array("test/labels").tolist() == [0, 1, 2, 3]
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(InvalidFileError) as caught, open_features(path):
        pass
    assert str(caught.value).startswith(f"{path}: not a feature file of ours: {fault}")


def test_features_of_another_model_seed_or_problem_are_told(tmp_path: Path) -> None:
    path = write(tmp_path / "features.h5")
    with h5py.File(path, "a") as file:
        file.attrs.update({"model_sha256": "a" * 64, "problem": "p"})
    with open_features(path) as features:
        features.check_is_of("a" * 64, 0, "p")
        for told, fault in (
            (("b" * 64, 0, "p"), f"its model_sha256 is {'a' * 64}, not {'b' * 64}"),
            (("a" * 64, 1, "p"), "its seed is 0, not 1"),
            (("a" * 64, 0, "q"), "its problem is p, not q"),
        ):
            with pytest.raises(InvalidFileError) as caught:
                features.check_is_of(*told)
            assert str(caught.value) == f"{path}: {fault}"
