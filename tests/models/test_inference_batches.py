import pytest
import torch

from unlearnbench.models.batches import Augmentation, Batches, in_batches, inference_batch


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
