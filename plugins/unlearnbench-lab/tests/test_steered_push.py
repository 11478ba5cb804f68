"""Steered push follows what held-out images show, never learns from them, and tells in the record how it went."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.registry.declare import CHECK_OPTIONS
from unlearnbench.registry.describe import plugin_page
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import plugin_schema
from unlearnbench.testing import check_unlearner
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.held_out import HeldOut
from unlearnbench_lab.student import Student
from unlearnbench_lab.unlearners.steered_push import steered, steered_push

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


def task_of(images: int = 40) -> UnlearningTask:
    pixels = torch.randint(256, (images, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Batches(pixels, torch.arange(images) % 4, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, lambda: network(1))


def test_weights_follow_the_formula_of_the_page() -> None:
    share, goal = torch.tensor([0.9, 0.8, 1.0]), torch.tensor([0.8, 0.6, 0.7])
    expected = [0.1 * math.exp(0.3 * error) for error in (0.5, 0.5, 1.0)]
    assert steered([0.1, 0.1, 0.1], share, goal) == pytest.approx(expected, abs=1e-4)


def test_a_view_below_its_goal_holds_back_the_others() -> None:
    share, goal = torch.tensor([0.7, 0.75, 0.9]), torch.tensor([0.8, 0.5, 0.5])
    # The errors are -0.5, 0.5 and 0.8, so that the second stands still and the third rises by the difference.
    expected = [0.1 * math.exp(0.3 * step) for step in (-1.0, 0.0, 0.3)]
    assert steered([0.1, 0.1, 0.1], share, goal) == pytest.approx(expected, abs=1e-4)


def test_weights_stay_within_bounds() -> None:
    assert steered([0.95, 0.011, 0.5], torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.5, 0.5]))[0] == 1.0
    assert steered([0.95, 0.011, 0.5], torch.tensor([0.0, 0.0, 0.0]), torch.tensor([0.5, 0.5, 0.5]))[1] == 0.01


def test_held_out_images_are_never_learned_from() -> None:
    task = task_of()
    held = torch.ones(40, dtype=torch.bool)
    held[HeldOut(network(), task_of(), 0.5).learned] = False
    given: list[torch.Tensor] = []
    shuffled = task._data.shuffled

    def watched(size: int, generator: torch.Generator, positions: torch.Tensor) -> object:
        given.append(positions)
        return shuffled(size, generator, positions)

    # What it watches takes the share of a batch too, which a task never gives.
    task._data.shuffled = watched  # type: ignore[method-assign,assignment]
    steered_push(network(), task, epochs=2, batch_size=8, unseen_epochs=3)
    assert len(given) == 5
    assert held.sum() == 10
    for positions in given:
        assert not held[positions].any()
    for positions in given[:3]:
        assert not task.is_forget(task._data.labels[positions]).any()


def test_it_reads_what_its_page_says() -> None:
    task = task_of()
    steered_push(network(), task, epochs=2, batch_size=8, unseen_epochs=3)
    # Plain images: for Original, the fresh network, the memory of features, and after each of two epochs.
    assert task.image_passes == {"forget": 5 * 20 + 2 * 10, "retain": 5 * 20 + 2 * 20 + 3 * 16}


def test_the_record_tells_goal_shares_and_weights() -> None:
    task = task_of()
    steered_push(network(), task, epochs=3, batch_size=8, unseen_epochs=1)
    told = task.details["steering"]
    assert len(told["goal"]) == len(told["views"]) == 3
    assert told["epochs"][0]["pushes"] == [0.1, 0.1, 0.1]
    goal = torch.tensor(told["goal"])
    for before, after in zip(told["epochs"], told["epochs"][1:], strict=False):
        expected = steered(before["pushes"], torch.tensor(before["share"]), goal)
        assert after["pushes"] == pytest.approx(expected, abs=1e-3)


def test_only_the_last_stage_moves() -> None:
    original = network()
    unlearned = steered_push(copy.deepcopy(original), task_of(), epochs=2, batch_size=8, unseen_epochs=1)
    assert all(parameter.requires_grad for parameter in unlearned.parameters())
    # The types of a container's modules are not known.
    assert not torch.equal(original[4].weight, unlearned.get_submodule("4").weight)  # type: ignore[arg-type]


def test_one_weight_of_a_view_pushes_all_stages() -> None:
    given: list[list[float]] = []
    epoch = Student.epoch

    def watched(self: Student, weights: list[float]) -> torch.Tensor:
        given.append(list(weights))
        return epoch(self, weights)

    deep = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(5, 4)
    )
    task = task_of()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Student, "epoch", watched)
        steered_push(deep, task, epochs=3, batch_size=8, unseen_epochs=1, trained="all", pushed="every_stage")
    pushes = [entry["pushes"] for entry in task.details["steering"]["epochs"]]
    for weights, three in zip(given, pushes, strict=True):
        assert len(weights) > 3
        assert weights == three * (len(weights) // 3)


@pytest.mark.parametrize("options", [{}, {"mixing": 0.5, "trained": "all", "pushed": "every_stage"}])
def test_it_keeps_to_the_contract(options: dict[str, Any]) -> None:
    function = find("unlearners", "steered_push").load()
    results = check_unlearner(function, {**getattr(function, CHECK_OPTIONS), **options})
    assert {result.status for result in results} == {"passed"}


def test_its_page_says_what_it_reads_and_changes_and_where_it_is_from() -> None:
    plugin = find("unlearners", "steered_push")
    lines = plugin_page(plugin).splitlines()
    for section in ("Returns:", "Raises:", "Reads:", "Changes:", "Source:", "Options"):
        assert any(line.startswith(section) for line in lines), section
    assert max(map(len, lines)) <= 120
    assert all(option.meaning for option in plugin_schema(plugin))
