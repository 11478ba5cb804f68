"""Batches of images."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from unlearnbench.datasets.dataset import ArrayImages
from unlearnbench.models.batches import (
    Augmentation,
    Batches,
    Share,
    batch_sizes,
    image_tensor,
    in_batches,
    inference_batch,
    resized,
)

MEAN, STD = (0.2, 0.4, 0.6), (0.1, 0.2, 0.3)
PLAIN = Augmentation()


def pixels(count: int, side: int = 6, channels: int = 3) -> Tensor:
    """Return images in which every pixel has a random value of 255, so that images and crops can be told apart."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (count, channels, side, side), generator=generator).to(torch.uint8)


def batches(images: Tensor, augmentation: Augmentation = PLAIN) -> Batches:
    channels = images.shape[1]
    return Batches(images, torch.arange(len(images)), MEAN[:channels], STD[:channels], augmentation)


def epoch(data: Batches, seed: int = 0, size: int = 64, positions: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return the images of one epoch, converted back to uint8, and their labels."""
    parts = list(data.shuffled(size, torch.Generator().manual_seed(seed), positions))
    images = torch.cat([images for images, _ in parts])
    return (data.denormalise(images) * 255).round().to(torch.uint8), torch.cat([labels for _, labels in parts])


def test_normalisation_is_that_of_numpy() -> None:
    images = pixels(5)
    expected = (images.numpy() / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    data = batches(images)
    assert data.normalise(images).dtype == torch.float32
    np.testing.assert_allclose(data.normalise(images).numpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(data.denormalise(data.normalise(images)).numpy(), images.numpy() / 255, atol=1e-6)


def test_resizing_keeps_means_and_smooths_before_it_thins_out() -> None:
    stripes = torch.tensor([0.0, 1.0]).repeat(16).expand(2, 3, 32, 32)
    small = resized(stripes, 16)
    assert small.shape == (2, 3, 16, 16)
    # Every second column alone would be all 0 or all 1.
    assert torch.allclose(small, torch.full_like(small, 0.5), atol=0.2)
    assert torch.allclose(resized(torch.full((1, 3, 32, 48), 0.7), 20), torch.full((1, 3, 20, 30), 0.7))


def test_an_epoch_visits_each_image_once() -> None:
    images = pixels(50)
    seen, labels = epoch(batches(images), size=16)
    assert sorted(labels.tolist()) == list(range(50))
    assert labels.tolist() != list(range(50))
    assert torch.equal(seen, images[labels])


def test_batches_have_the_size_asked_for_but_the_last() -> None:
    generator = torch.Generator().manual_seed(0)
    assert [len(labels) for _, labels in batches(pixels(50)).shuffled(16, generator)] == [16, 16, 16, 2]


@pytest.mark.parametrize(
    ("images", "size", "sizes"),
    [(33, 16, [16, 17]), (17, 16, [17]), (1, 16, [1]), (3, 1, [1, 1, 1]), (34, 16, [16, 16, 2]), (0, 4, [])],
)
def test_a_single_image_that_is_left_over_joins_the_batch_before(images: int, size: int, sizes: list[int]) -> None:
    assert batch_sizes(images, size) == sizes
    generator = torch.Generator().manual_seed(0)
    assert [len(labels) for _, labels in batches(pixels(images)).shuffled(size, generator)] == sizes


@pytest.mark.parametrize(
    ("images", "size", "sizes"), [(35, 16, [16, 19]), (36, 16, [16, 16, 4]), (35, 8, [8] * 3 + [11])]
)
def test_processes_share_each_batch_out(images: int, size: int, sizes: list[int]) -> None:
    data = batches(pixels(images), Augmentation(crop=4, padding=2, horizontal_flip=True))
    whole = list(data.shuffled(size, torch.Generator().manual_seed(1), share=Share(0, 1)))
    parts = [list(data.shuffled(size, torch.Generator().manual_seed(1), share=Share(k, 2))) for k in range(2)]
    assert [len(one[1]) + len(other[1]) for one, other in zip(*parts, strict=True)] == sizes
    seen, labels = (torch.cat([batch[k] for batch in whole]) for k in range(2))
    end = 0
    for number, batch_size in enumerate(sizes):
        for k in range(2):
            assert torch.equal(parts[k][number][0], seen[end + k : end + batch_size : 2])
            assert torch.equal(parts[k][number][1], labels[end + k : end + batch_size : 2])
        end += batch_size


def test_an_epoch_visits_only_the_positions_given() -> None:
    _, labels = epoch(batches(pixels(50)), positions=torch.tensor([3, 40, 7]))
    assert sorted(labels.tolist()) == [3, 7, 40]


def test_an_epoch_depends_on_its_generator_alone() -> None:
    data = batches(pixels(50), Augmentation(crop=4, padding=2, horizontal_flip=True))
    images, labels = epoch(data, seed=1)
    torch.manual_seed(99)
    torch.rand(7)
    state = torch.get_rng_state()
    again, labels_again = epoch(data, seed=1)
    assert torch.equal(images, again)
    assert torch.equal(labels, labels_again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(labels, epoch(data, seed=2)[1])


def test_the_batch_size_does_not_change_what_is_drawn() -> None:
    data = batches(pixels(50), Augmentation(crop=4, padding=2, horizontal_flip=True))
    assert torch.equal(epoch(data, size=7)[0], epoch(data, size=50)[0])


def windows(image: Tensor, side: int, padding: int) -> dict[bytes, tuple[int, int]]:
    """Return the position of every crop of a padded image, by its content."""
    padded = np.pad(image.numpy(), ((0, 0), (padding, padding), (padding, padding)))
    last = padded.shape[1] - side + 1
    return {
        padded[:, row : row + side, column : column + side].tobytes(): (row, column)
        for row in range(last)
        for column in range(last)
    }


@pytest.mark.parametrize(("crop", "padding"), [(4, 0), (6, 2), (None, 2), (5, 1)])
def test_a_crop_is_a_window_of_the_padded_image_and_every_image_has_its_own(crop: int | None, padding: int) -> None:
    images = pixels(200)
    seen, labels = epoch(batches(images, Augmentation(crop, padding)))
    side = crop or 6
    assert seen.shape == (200, 3, side, side)
    places = [
        windows(images[label], side, padding).get(crop_of.numpy().tobytes())
        for crop_of, label in zip(seen, labels.tolist(), strict=True)
    ]
    assert None not in places
    # All of the at most 25 places occur for 200 images, and several of them in the first batch of 64.
    assert set(places) == set(windows(images[0], side, padding).values())
    assert len(set(places[:64])) > 1


def test_each_image_of_a_batch_is_mirrored_or_not_on_its_own() -> None:
    images = pixels(200)
    seen, labels = epoch(batches(images, Augmentation(horizontal_flip=True)), size=200)
    same = (seen == images[labels]).flatten(1).all(dim=1)
    mirrored = (seen == images[labels].flip(-1)).flatten(1).all(dim=1)
    assert bool((same ^ mirrored).all())
    # The expectation is 100, the standard deviation 7.
    assert 65 < int(mirrored.sum()) < 135


def test_without_augmentation_nothing_moves() -> None:
    images = pixels(20)
    seen, labels = epoch(batches(images, Augmentation(crop=6)))
    assert torch.equal(seen, images[labels])


@pytest.mark.parametrize(("height", "width", "crop"), [(6, 6, 4), (6, 6, 3), (8, 6, 6), (6, 8, 6), (7, 9, 4)])
def test_a_test_shows_the_centre(height: int, width: int, crop: int) -> None:
    images = torch.randint(256, (4, 1, height, width)).to(torch.uint8)
    data = batches(images, Augmentation(crop=crop, padding=2, horizontal_flip=True))
    top, left = (height - crop) // 2, (width - crop) // 2
    expected = data.normalise(images[:, :, top : top + crop, left : left + crop])
    assert torch.equal(data.plain(torch.arange(4)), expected)


def test_in_order_is_in_order() -> None:
    data = batches(pixels(10))
    parts = list(data.in_order(4))
    assert [labels.tolist() for _, labels in parts] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert torch.equal(torch.cat([images for images, _ in parts]), data.plain(torch.arange(10)))
    assert [labels.tolist() for _, labels in data.in_order(2, torch.tensor([5, 1, 9]))] == [[5, 1], [9]]


def test_an_image_tensor_is_a_copy_of_the_images_chosen() -> None:
    array = pixels(10).numpy()
    chosen = image_tensor(ArrayImages(array), np.array([2, 5]), torch.device("cpu"))
    assert torch.equal(chosen, torch.from_numpy(array[[2, 5]]))
    whole = image_tensor(ArrayImages(array), np.arange(10), torch.device("cpu"))
    assert not np.shares_memory(whole.numpy(), array)


@pytest.mark.parametrize(
    ("device", "shape", "images"),
    [
        ("cpu", (3, 8, 8), 512),
        ("cpu", (3, 32, 32), 64),
        ("cpu", (3, 64, 64), 16),
        ("cpu", (3, 224, 224), 16),
        ("cuda", (3, 32, 32), 512),
        ("cuda", (3, 224, 224), 512),
    ],
)
def test_a_cpu_takes_fewer_large_images_at_a_time(device: str, shape: tuple[int, int, int], images: int) -> None:
    assert inference_batch(torch.device(device), shape) == images


def test_batches_are_as_large_as_what_the_network_sees_allows() -> None:
    stored = torch.randint(256, (200, 1, 128, 128), dtype=torch.uint8)
    cropped = Batches(stored, torch.arange(200) % 7, (0.5,), (0.3,), Augmentation(crop=32))
    positions = torch.arange(199, 49, -1)
    found = list(in_batches(cropped, positions))
    assert [len(images) for images, _ in found] == [64, 64, 22]
    assert torch.equal(torch.cat([images for images, _ in found]), cropped.plain(positions))
    assert torch.equal(torch.cat([labels for _, labels in found]), positions % 7)
    assert sum(len(images) for images, _ in in_batches(cropped)) == 200
