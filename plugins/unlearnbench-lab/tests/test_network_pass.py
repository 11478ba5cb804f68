"""Images that are changed more than training changes them."""

import pytest
import torch
from torch import Tensor, nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.network_pass import strongly_augmented

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


def task_of(channels: int) -> UnlearningTask:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(256, (40, channels, 8, 8), dtype=torch.uint8, generator=generator)
    data = Batches(pixels, torch.arange(40) % 4, [0.5] * channels, [0.3] * channels, Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, nn.Identity)


@pytest.mark.parametrize("channels", [1, 3])
def test_every_image_is_changed_in_its_own_way_and_by_the_given_stream_alone(channels: int) -> None:
    task = task_of(channels)
    images = next(task.plain())[0]

    def changed(seed: int) -> Tensor:
        torch.manual_seed(torch.seed() % 2**32)
        before = torch.get_rng_state()
        result = strongly_augmented(images, task, torch.Generator().manual_seed(seed))
        assert torch.equal(torch.get_rng_state(), before)
        return result

    first = changed(0)
    assert torch.equal(first, changed(0))
    assert not torch.equal(first, changed(1))
    assert first.shape == images.shape
    pixels = task.pixels(first)
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    # One operation of the fourteen changes nothing, and others do so at their least strength.
    assert (first != images).flatten(1).any(dim=1).float().mean() > 0.5
