"""Images that stay on disk and are read ahead give the same numbers as images in memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from support.tiny_data import imagenet_tree, small_imagenet

from unlearnbench.datasets.add import add
from unlearnbench.datasets.dataset import ArrayImages, Dataset, DatasetInfo, Part, open_dataset
from unlearnbench.errors import DatasetError
from unlearnbench.models import batches, device_data
from unlearnbench.models.batches import BATCHES_AHEAD, Augmentation, Batches, image_tensor, read_ahead
from unlearnbench.models.device_data import LIMITED_IMAGES, LoadedData, limited_batches
from unlearnbench.models.recipe import TrainingRecipe

pytest_plugins = ["support.data_fixtures"]

IMAGES = np.random.default_rng(0).integers(0, 256, (23, 3, 8, 10), dtype=np.uint8)
LABELS = torch.arange(23)
AUGMENTATIONS = [
    Augmentation(),
    Augmentation(crop=6, horizontal_flip=True),
    Augmentation(crop=8, padding=2, horizontal_flip=True),
    Augmentation(padding=1),
]


def both(augmentation: Augmentation) -> tuple[Batches, Batches]:
    settings = (LABELS, (0.5,) * 3, (0.2,) * 3, augmentation)
    return Batches(torch.from_numpy(IMAGES), *settings), Batches(ArrayImages(IMAGES), *settings)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_training_batches_are_the_same_bit_for_bit(augmentation: Augmentation) -> None:
    positions = torch.tensor([3, 5, 7, 11, 13, 17, 19])
    for chosen in (None, positions):
        epochs = [list(batches.shuffled(4, torch.Generator().manual_seed(1), chosen)) for batches in both(augmentation)]
        for (images, labels), (streamed, streamed_labels) in zip(*epochs, strict=True):
            assert torch.equal(images, streamed)
            assert torch.equal(labels, streamed_labels)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_test_batches_are_the_same_bit_for_bit(augmentation: Augmentation) -> None:
    memory, stream = both(augmentation)
    for (images, labels), (streamed, streamed_labels) in zip(memory.in_order(5), stream.in_order(5), strict=True):
        assert torch.equal(images, streamed)
        assert torch.equal(labels, streamed_labels)
    assert torch.equal(memory.plain(torch.tensor([4, 2])), stream.plain(torch.tensor([4, 2])))


class Watched(ArrayImages):
    """Images that count how many of them were read."""

    reads = 0

    def read(self, indices: np.ndarray) -> np.ndarray:
        Watched.reads += 1
        assert threading.current_thread().name.startswith("read-ahead")
        return super().read(indices)


def test_no_more_than_a_few_batches_are_read_ahead() -> None:
    Watched.reads = 0
    stream = read_ahead(Watched(IMAGES), torch.arange(23).split(1))
    next(stream)
    stream.close()
    assert 1 <= Watched.reads <= 1 + BATCHES_AHEAD


def test_a_fault_while_reading_ahead_reaches_the_reader() -> None:
    class Broken(ArrayImages):
        def read(self, indices: np.ndarray) -> np.ndarray:
            raise DatasetError("x.jpg: damaged")

    with pytest.raises(DatasetError, match=r"^x\.jpg: damaged$"):
        list(read_ahead(Broken(IMAGES), torch.arange(23).split(5)))


def test_a_set_that_does_not_fit_is_streamed_and_its_limited_part_copied(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_imagenet(monkeypatch)
    add("imagenet1k", [imagenet_tree(tmp_path / "given")])
    recipe = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1, crop=32)
    dataset = open_dataset("imagenet1k")
    fitting = LoadedData(dataset, recipe, torch.device("cpu"))
    assert isinstance(fitting.train._images, torch.Tensor)
    monkeypatch.setattr(device_data, "free_memory", lambda device: 1000)
    large = LoadedData(dataset, recipe, torch.device("cpu"))
    assert not isinstance(large.train._images, torch.Tensor)
    assert isinstance(large.limited((1,) * 4, 0)._images, torch.Tensor)
    for (images, _), (streamed, _) in zip(fitting.train.in_order(5), large.train.in_order(5), strict=True):
        assert images.shape[1:] == (3, 32, 32)
        assert torch.equal(images, streamed)


class Parts(ArrayImages):
    """Images that note how many of them are read at a time."""

    at_a_time: ClassVar[list[int]] = []

    def read(self, indices: np.ndarray) -> np.ndarray:
        Parts.at_a_time.append(len(indices))
        return super().read(indices)


@pytest.fixture
def few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a part be two of `IMAGES`."""
    monkeypatch.setattr(batches, "CHUNK_BYTES", 2 * IMAGES[0].nbytes + 1)
    monkeypatch.setattr(Parts, "at_a_time", [])


@pytest.mark.usefixtures("few_at_a_time")
def test_images_are_copied_by_parts_so_that_they_never_lie_in_memory_twice() -> None:
    chosen = np.array([7, 3, 11, 22, 0])
    found = image_tensor(Parts(IMAGES), chosen, torch.device("cpu"))
    assert torch.equal(found, torch.from_numpy(IMAGES[chosen]))
    assert Parts.at_a_time == [2, 2, 1]


@pytest.mark.usefixtures("few_at_a_time")
def test_limited_images_are_handed_on_in_a_file_and_what_is_changed_in_them_stays_outside(tmp_path: Path) -> None:
    labels, ids = np.repeat([0, 1], [12, 11]), np.arange(23)
    info = DatasetInfo("x", "1", ("a", "b"), (12, 11), (12, 11), (3, 8, 10), (0.5,) * 3, (0.2,) * 3)
    part = Part(Parts(IMAGES), labels, ids)
    recipe = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1)
    data = LoadedData(Dataset(info, lambda: part, lambda: part), recipe, torch.device("cpu"))
    data.write_limited(tmp_path, (3, 2), 0)
    assert Parts.at_a_time == [2, 2, 1]
    held, kept = data.limited((3, 2), 0), (tmp_path / LIMITED_IMAGES).read_bytes()
    mapped = limited_batches(tmp_path, data.mean, data.std, recipe, torch.device("cpu"))
    assert torch.equal(mapped._images, held._images)
    assert torch.equal(mapped.labels, held.labels)
    mapped._images.zero_()
    assert (tmp_path / LIMITED_IMAGES).read_bytes() == kept


def test_the_recipe_s_normalisation_goes_before_the_data_set_s() -> None:
    recipe = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1, mean=(0.25,), std=(0.5,))
    data = LoadedData(open_dataset("digits"), recipe, torch.device("cpu"))
    pixels = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    assert data.test.normalise(pixels).unique().tolist() == pytest.approx([1.5])
