"""Images that stay on disk and are read ahead give the same numbers as images in memory."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from support.tiny_data import imagenet_tree, small_imagenet

from unlearnbench.datasets.add import add
from unlearnbench.datasets.dataset import ArrayImages, open_dataset
from unlearnbench.errors import DatasetError
from unlearnbench.models import device_data
from unlearnbench.models.batches import BATCHES_AHEAD, Augmentation, Batches, read_ahead
from unlearnbench.models.device_data import LoadedData
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


def test_the_recipe_s_normalisation_goes_before_the_data_set_s() -> None:
    recipe = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1, mean=(0.25,), std=(0.5,))
    data = LoadedData(open_dataset("digits"), recipe, torch.device("cpu"))
    pixels = torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)
    assert data.test.normalise(pixels).unique().tolist() == pytest.approx([1.5])
