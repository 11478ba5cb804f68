"""Real CIFAR-100 images, if they lie beside the repository."""

from __future__ import annotations

import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.paths import REPOSITORY

from unlearnbench.datasets.class_folders import class_images
from unlearnbench.datasets.download import is_archive
from unlearnbench.datasets.images import decode

ARCHIVE = REPOSITORY.parent / "shared" / "data" / "cifar-100-test.tar.gz"

pytestmark = pytest.mark.skipif(not ARCHIVE.is_file(), reason=f"no real images: {ARCHIVE} is missing")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the first three test images of each class."""
    folder = tmp_path_factory.mktemp("real")
    taken: dict[str, int] = {}
    with tarfile.open(ARCHIVE) as tar:
        for member in tar:
            name = Path(member.name).parent.name
            if member.isfile() and taken.get(name, 0) < 3:
                taken[name] = taken.get(name, 0) + 1
                tar.extract(member, folder, filter="data")
    return folder / "cifar-100" / "test"


def test_the_archive_holds_the_hundred_classes_in_their_usual_order(tree: Path) -> None:
    faults: list[str] = []
    classes = class_images(tree, faults)
    assert faults == []
    assert is_archive(ARCHIVE)
    assert len(classes) == 100
    names = list(classes)
    # These are the usual class indices.
    assert [names.index(name) for name in ("apple", "baby", "lobster", "train", "worm")] == [0, 2, 45, 90, 99]


def test_real_images_decode_to_what_pillow_shows(tree: Path) -> None:
    for file in sorted(tree.rglob("*.webp"))[::10]:
        image = decode(file.read_bytes(), file)
        assert image.shape == (3, 32, 32)
        assert np.array_equal(image.transpose(1, 2, 0), np.asarray(Image.open(file).convert("RGB")))
