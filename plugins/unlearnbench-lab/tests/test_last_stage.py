"""Only what the last stage adds is trained."""

import torch
from torch import Tensor, nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.builtin.cifar_resnet import resnet20
from unlearnbench.models.builtin.digits_net import digits_net
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.last_stage import freeze_below_last_stage, train_mode
from unlearnbench_lab.unlearners.redrawn_layers import redrawn_layers


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


class Shifted(nn.Module):
    """A network that holds a parameter itself, as a transformer does its class token."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 1, 1))
        self.layers = digits_net(4, (1, 8, 8))

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.layers(images + self.shift)
        return out


def test_a_network_that_holds_a_parameter_itself_is_not_frozen_with_it() -> None:
    model = Shifted()
    frozen = freeze_below_last_stage(model, task_with(1, 8, 8))
    assert moving(model) == {f"layers.{part}" for part in ("8.weight", "9.weight", "9.bias", "13.weight", "13.bias")}
    train_mode(model, frozen)
    norms = {name: m.training for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert norms == {name: name == "layers.9" for name in norms}


def test_what_a_network_holds_itself_is_not_drawn_anew() -> None:
    torch.manual_seed(0)
    model, fresh = Shifted(), Shifted()
    model.shift.data.fill_(0.5)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    task = task_with(1, 8, 8)
    task = UnlearningTask(task._data, (3,), 4, task.recipe, 0, lambda: fresh)
    found = redrawn_layers(model, task, epochs=0).state_dict()
    above = {name for name in found if name.startswith(("layers.8.", "layers.9.", "layers.13."))}
    assert above
    for name, value in found.items():
        assert torch.equal(value, fresh.state_dict()[name] if name in above else before[name]), name
