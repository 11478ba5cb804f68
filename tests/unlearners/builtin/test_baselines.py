import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.classifier import classifier, output_classes
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.models.training import learning_rate
from unlearnbench.unlearners.builtin import baselines
from unlearnbench.unlearners.builtin.weight_deletion import wd
from unlearnbench.unlearners.distillation import distillation_loss
from unlearnbench.unlearners.task import UnlearningTask

RECIPE = TrainingRecipe(
    precision="float32", epochs=4, batch_size=8, learning_rate=0.1, milestones=(2,), weight_decay=1e-3
)
FULL = ("tslnrc", "tslnrc_kd", "tolnrc", "tolnrc_kd")
FINE = ("folmrcsc", "folmrcsc_kd", "folnrc", "folnrc_kd")


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)).eval()


def task_of(seed: int = 0) -> UnlearningTask:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (32, 1, 4, 4), dtype=torch.uint8, generator=generator)
    data = Batches(images, torch.arange(32) % 4, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, seed, lambda: network(7))


def run(name: str, model: nn.Module, task: UnlearningTask, **options: object) -> nn.Module:
    function: Callable[..., nn.Module] = getattr(baselines, name)
    torch.manual_seed(5)
    return function(model, task, **options)


@pytest.mark.parametrize(
    ("name", "reads"),
    [(name, {"forget": 0, "retain": 4 * 16}) for name in FULL]
    + [(name, {"forget": 3 * 16, "retain": 3 * 16}) for name in FINE[:2]]
    + [(name, {"forget": 0, "retain": 3 * 16}) for name in FINE[2:]],
)
def test_image_passes_are_epochs_times_the_images_of_its_kind(name: str, reads: dict[str, int]) -> None:
    task = task_of()
    run(name, network(), task, **({} if name in FULL else {"epochs": 3}))
    assert task.image_passes == reads


def by_hand(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    kind: str,
    rate: Callable[[int], float],
    beta: float,
) -> nn.Module:
    """Train as the table in SPEC says, without the package's loop."""
    task, teacher = task_of(), network()
    step = 0
    for _ in range(epochs):
        model.train()
        for images, labels in task.batches(1, kind):
            for group in optimizer.param_groups:
                group["lr"] = rate(step)
            logits = model(images)
            targets = torch.tensor([4 if label in (1, 3) else label for label in labels.tolist()])
            loss = F.cross_entropy(logits, targets)
            if beta:
                loss = loss + beta * distillation_loss(logits[:, [0, 2]], teacher(images)[:, [0, 2]], 2.0)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
    return model


def same(first: nn.Module, second: nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.allclose(a, b, atol=1e-6) for (name, a), (other, b) in pairs)


@pytest.mark.parametrize("name", FULL)
def test_full_schedules_follow_the_recipe_from_their_own_start(name: str) -> None:
    start = network(7) if name.startswith("tslnrc") else network()
    optimizer = torch.optim.SGD(start.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    beta = 10.0 if name.endswith("kd") else 0.0
    expected = by_hand(start, optimizer, 4, "retain", lambda step: 0.1 if step < 4 else 0.01, beta)
    assert same(run(name, network(), task_of()), expected)


@pytest.mark.parametrize("name", FINE[2:])
def test_fine_tunes_start_from_the_original_with_one_rate(name: str) -> None:
    start = network()
    beta = 10.0 if name.endswith("kd") else 0.0
    expected = by_hand(start, torch.optim.Adam(start.parameters()), 3, "retain", lambda step: 1e-3, beta)
    assert same(run(name, network(), task_of(), epochs=3, learning_rate=1e-3), expected)


@pytest.mark.parametrize("name", FINE[:2])
def test_merged_forget_classes_train_one_new_output(name: str) -> None:
    torch.manual_seed(5)
    start = network()
    torch.manual_seed(5)
    from unlearnbench.models.classifier import add_output

    add_output(start, 4)
    optimizer = torch.optim.SGD(start.parameters(), lr=1e-2, momentum=0.9)
    beta = 10.0 if name.endswith("kd") else 0.0
    expected = by_hand(start, optimizer, 3, "all", lambda step: 1e-2, beta)
    unlearned = run(name, network(), task_of(), epochs=3, learning_rate=1e-2, optimizer="sgd")
    assert same(unlearned, expected)
    assert output_classes(unlearned).tolist() == [0, 1, 2, 3, 4]


def test_a_grown_classifier_keeps_the_old_rows() -> None:
    original = network()
    grown = run("folmrcsc", copy.deepcopy(original), task_of(), epochs=0)
    assert torch.equal(classifier(grown).weight[:4], classifier(original).weight)
    assert torch.equal(classifier(grown).bias[:4], classifier(original).bias)
    assert classifier(grown).out_features == 5


def test_given_epochs_stretch_the_schedule() -> None:
    stretched = RECIPE.model_copy(update={"epochs": 8, "milestones": (4,)})
    start = network()
    optimizer = torch.optim.SGD(start.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    expected = by_hand(start, optimizer, 8, "retain", lambda step: learning_rate(stretched, step, 2), 0.0)
    assert same(run("tolnrc", network(), task_of(), epochs=8), expected)


@pytest.mark.parametrize("name", FULL + FINE)
def test_the_same_seed_gives_the_same_weights(name: str) -> None:
    first, second = run(name, network(), task_of()), run(name, network(), task_of())
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


def test_weight_deletion_leaves_the_retain_rows_and_reads_nothing() -> None:
    original, task = network(), task_of()
    unlearned = wd(copy.deepcopy(original), task)
    assert torch.equal(classifier(unlearned).weight, classifier(original).weight[[0, 2]])
    assert output_classes(unlearned).tolist() == [0, 2]
    assert task.image_passes == {"forget": 0, "retain": 0}


def test_a_fine_tune_can_have_a_batch_size_of_its_own() -> None:
    small, recipes = (run("folnrc", network(), task_of(), epochs=1, batch_size=size) for size in (4, None))
    start = network()
    optimizer = torch.optim.Adam(start.parameters(), lr=1e-4)
    start.train()
    for images, labels in task_of().batches(1, "retain", batch_size=4):
        optimizer.zero_grad()
        F.cross_entropy(start(images), labels).backward()
        optimizer.step()
    assert same(small, start)
    assert not same(small, recipes)
