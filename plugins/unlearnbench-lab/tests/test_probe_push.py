"""Probe push keeps to the contract, steps as its page says, and needs nothing but the limited data."""

import copy
from typing import Any, NoReturn

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.registry.describe import plugin_page
from unlearnbench.registry.entry_points import find
from unlearnbench.registry.options import plugin_schema
from unlearnbench.testing import check_unlearner
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.probes import DiscriminantProbe, PrototypeProbe
from unlearnbench_lab.unlearners.probe_push import probe_push

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")
FORGET = torch.tensor([1, 3])
RETAIN = torch.tensor([0, 2])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)
    ).eval()


def no_fresh_model() -> NoReturn:
    raise AssertionError("a method of the lab asked for a model that is not the original")


def task_of() -> UnlearningTask:
    """Return 24 images of 4 classes; without augmentation, all of them are one step."""
    images = torch.randint(256, (24, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = Batches(images, torch.arange(24) % 4, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, no_fresh_model)


def all_images(task: UnlearningTask) -> tuple[Tensor, Tensor]:
    positions = torch.arange(24)
    return task._data.plain(positions), task._data.labels


def push(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean of -log(1 - p), as the log of the odds that the others lose."""
    rows = [F.softplus(z[k] - z[torch.arange(4) != k].logsumexp(dim=0)) for z, k in zip(logits, labels, strict=True)]
    return torch.stack(rows).mean()


def test_a_step_goes_down_the_loss_of_the_page() -> None:
    task, original, expected = task_of(), network(), copy.deepcopy(network()).train()
    images, labels = all_images(task)
    linear, nearest = DiscriminantProbe(4), PrototypeProbe(4)
    with torch.no_grad():
        linear.fit(original[:4](images), labels)
        nearest.fit(original[:4](images), labels)
        target = (original(images)[:, RETAIN] / 4.0).softmax(dim=1)
    forget = torch.isin(labels, FORGET)
    features = expected[:4](images)
    logits = expected[4](features)
    truth, moved = labels[forget], features[forget]
    loss = 2.0 * push(linear(moved), truth) + 0.7 * push(nearest(moved), truth) + 0.5 * push(logits[forget], truth)
    student = (logits[:, RETAIN] / 4.0).log_softmax(dim=1)
    divergence = (target * (target.log() - student))[~forget].sum() / (~forget).sum()
    loss = loss + 3.0 * 4.0**2 * divergence
    gradients = torch.autograd.grad(loss, list(expected.parameters()))
    options: dict[str, Any] = {
        "linear_push": 2.0,
        "prototype_push": 0.7,
        "neighbour_push": 0.0,
        "output_push": 0.5,
        "distillation": 3.0,
        "linear": "discriminant",
        "trained": "all",
    }
    found = probe_push(network(), task, epochs=1, batch_size=24, learning_rate=0.25, **options)
    # The one cycle begins at a 25th of its highest rate.
    for parameter, gradient, moved in zip(expected.parameters(), gradients, found.parameters(), strict=True):
        assert torch.allclose(parameter - 0.01 * gradient, moved, atol=1e-5)
        assert not torch.allclose(parameter, moved, atol=1e-5)


def test_it_reads_the_limited_images_alone() -> None:
    task = task_of()
    probe_push(network(), task, epochs=3, batch_size=8)
    # Once to begin with, then once in each epoch; `no_fresh_model` would have raised.
    assert task.image_passes == {"forget": 4 * 12, "retain": 4 * 12}


def test_without_weights_nothing_but_batch_norm_statistics_change() -> None:
    model = probe_push(
        network(),
        task_of(),
        epochs=2,
        linear_push=0.0,
        prototype_push=0.0,
        neighbour_push=0.0,
        output_push=0.0,
        distillation=0.0,
    )
    for (name, before), after in zip(network().named_parameters(), model.parameters(), strict=True):
        assert torch.equal(before, after), name


def test_mixed_retain_images_are_read_once_more() -> None:
    task = task_of()
    probe_push(network(), task, epochs=3, batch_size=8, mixing=1.0)
    assert task.image_passes == {"forget": 4 * 12, "retain": 7 * 12}


def test_every_stage_is_pushed_by_probes_of_its_own() -> None:
    deep = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 5, 1), nn.ReLU(), nn.Flatten(), nn.Linear(5, 4)
    )
    fitted: list[tuple[int, ...]] = []

    def watched(self: PrototypeProbe, features: Tensor, labels: Tensor) -> None:
        fitted.append(tuple(features.shape))
        fit(self, features, labels)

    fit = PrototypeProbe.fit
    options: dict[str, Any] = {"linear_push": 0.0, "neighbour_push": 0.0, "pushed": "every_stage", "trained": "all"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PrototypeProbe, "fit", watched)
        probe_push(deep, task_of(), epochs=1, batch_size=24, refits=1, remembered=2, **options)
    widths = {width for _, width in fitted}
    assert widths > {5}
    assert {rows for rows, _ in fitted} == {48}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"linear": "discriminant", "linear_push": 0.1, "trained": "all"},
        {"network_push": 0.1, "mixing": 0.5, "remembered": 3, "trained": "all", "pushed": "every_stage"},
        {"sharpness": 3, "augmentation": "strong"},
    ],
)
def test_it_keeps_to_the_contract(options: dict[str, Any]) -> None:
    results = check_unlearner(find("unlearners", "probe_push").load(), options)
    assert {result.status for result in results} == {"passed"}


def test_what_was_added_later_leaves_the_first_results_as_they_were() -> None:
    later = {option.name for option in plugin_schema(find("unlearners", "probe_push")) if option.added_later}
    assert later == {"network_push", "mixing", "remembered", "sharpness", "pushed", "augmentation"}


def test_its_page_says_what_it_reads_and_changes_and_where_it_is_from() -> None:
    plugin = find("unlearners", "probe_push")
    lines = plugin_page(plugin).splitlines()
    for section in ("Returns:", "Reads:", "Changes:", "Source:", "Options"):
        assert any(line.startswith(section) for line in lines), section
    assert max(map(len, lines)) <= 120
    assert all(option.meaning for option in plugin_schema(plugin))
