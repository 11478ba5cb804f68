"""Redrawn layers forget what they were, keep what lies below them, and read retain images alone."""

import pytest
import torch
from torch import nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.builtin.cifar_resnet import resnet20
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.testing import check_unlearner
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.unlearners.redrawn_layers import redrawn_layers

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, weight_decay=5e-4, precision="float32")


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return resnet20(4, (3, 16, 16)).eval()


def task_of() -> UnlearningTask:
    pixels = torch.randint(256, (24, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Batches(pixels, torch.arange(24) % 4, [0.5] * 3, [0.3] * 3, Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, lambda: network(1))


def test_layers_above_start_as_a_fresh_network_and_those_below_stay() -> None:
    original, fresh = network(0).state_dict(), network(1).state_dict()
    found = redrawn_layers(network(0), task_of(), epochs=0).state_dict()
    above = {name for name in found if name.startswith(("features.stage3.", "output."))}
    assert above
    for name, value in found.items():
        assert torch.equal(value, fresh[name] if name in above else original[name]), name


def test_all_layers_start_as_a_fresh_network() -> None:
    fresh = network(1).state_dict()
    found = redrawn_layers(network(0), task_of(), epochs=0, redrawn="all").state_dict()
    assert all(torch.equal(value, fresh[name]) for name, value in found.items())


@pytest.mark.parametrize(("mixing", "reads"), [(0.0, 1), (1.0, 2)])
def test_it_reads_retain_images_alone_and_mixed_ones_once_more(mixing: float, reads: int) -> None:
    task = task_of()
    before = network(0).state_dict()
    found = redrawn_layers(network(0), task, epochs=2, batch_size=8, mixing=mixing).state_dict()
    assert task.image_passes == {"forget": 0, "retain": reads * 2 * 12}
    below = {name for name in found if name.startswith(("features.stage1.", "features.stage2."))}
    assert below
    assert all(torch.equal(found[name], before[name]) for name in below)


def test_it_keeps_to_the_contract() -> None:
    assert {result.status for result in check_unlearner(redrawn_layers, {"mixing": 1.0})} == {"passed"}
