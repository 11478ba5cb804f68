"""Only what the last stage adds is trained."""

import torch
from torch import nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.builtin.cifar_resnet import resnet20
from unlearnbench.models.builtin.digits_net import digits_net
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage, train_mode


def task_with(*shape: int) -> UnlearningTask:
    data = Batches(torch.zeros(4, *shape, dtype=torch.uint8), torch.arange(4), [0.5], [0.3], Augmentation())
    recipe = TrainingRecipe(epochs=1, batch_size=4, learning_rate=0.1, precision="float32")
    return UnlearningTask(data, (3,), 4, recipe, 0, lambda: nn.Identity())


def moving(model: nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_a_residual_network_keeps_its_first_two_stages() -> None:
    model = resnet20(4, (3, 32, 32))
    frozen = freeze_below_last_stage(model, task_with(3, 32, 32))
    every = {name for name, _ in model.named_parameters()}
    assert moving(model) == {name for name in every if name.startswith(("features.stage3.", "output."))}
    train_mode(model, frozen)
    norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {name: name.startswith("features.stage3.") for name in norms}


def test_a_plain_network_keeps_its_first_two_blocks() -> None:
    model = digits_net(4, (1, 8, 8))
    freeze_below_last_stage(model, task_with(1, 8, 8))
    assert moving(model) == {"8.weight", "9.weight", "9.bias", "13.weight", "13.bias"}


def test_features_that_only_flatten_the_stage_before_are_no_stage_of_their_own() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))
    freeze_below_last_stage(model, task_with(1, 8, 8))
    assert moving(model) == {"2.weight", "2.bias", "5.weight", "5.bias"}


def test_a_network_of_one_stage_is_trained_as_a_whole() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    assert freeze_below_last_stage(model, task_with(1, 8, 8)) == []
    assert moving(model) == {"1.weight", "1.bias"}
