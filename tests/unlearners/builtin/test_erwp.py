import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unlearnbench.errors import TrainingFailedError
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.builtin.erwp import (
    ErwpOptions,
    MaskedUpdate,
    RemovalOptions,
    distillation,
    erwp,
    improbability_loss,
    rate_of_epoch,
    removal_loss,
    set_mode,
)
from unlearnbench.unlearners.builtin.relevance import search
from unlearnbench.unlearners.distillation import Teacher
from unlearnbench.unlearners.task import UnlearningTask

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(24, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


def small_task() -> UnlearningTask:
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(256, (24, 1, 4, 4), dtype=torch.uint8, generator=generator)
    data = Batches(images, torch.arange(24) % 3, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, (2,), 3, RECIPE, 0, network)


ROUGH = {"augmentation": "vertical_flip", "epochs": 3, "weight_decay": 0.1, "momentum": 0.9}


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("keep_share", [0.25, 1.0])
def test_everything_outside_the_mask_is_the_same_to_the_bit(optimizer: str, keep_share: float) -> None:
    options = ErwpOptions(optimizer=optimizer, learning_rate=1e-2, keep_share=keep_share, **ROUGH)
    original = network()
    masks, _ = search(copy.deepcopy(original), small_task(), options)
    unlearned = erwp(copy.deepcopy(original), small_task(), options=options).state_dict()
    moved = 0
    for name, before in original.state_dict().items():
        mask = masks.get(name, torch.zeros_like(before, dtype=torch.bool))
        assert torch.equal(unlearned[name][~mask], before[~mask]), name
        moved += int((unlearned[name][mask] != before[mask]).sum())
    assert moved > 0


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_mask_of_zeros_changes_nothing(optimizer: str) -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    masks = {name: torch.zeros_like(value, dtype=torch.bool) for name, value in model.named_parameters()}
    update = MaskedUpdate(model, masks, RemovalOptions(optimizer=optimizer, weight_decay=0.1, learning_rate=0.1))
    for images, labels in small_task().batches(2):
        update.step(F.cross_entropy(model(images), labels))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_mask_of_ones_is_unmasked_training_step_by_step() -> None:
    masked, free = network(), network()
    masks = {name: torch.ones_like(value, dtype=torch.bool) for name, value in masked.named_parameters()}
    options = RemovalOptions(optimizer="sgd", learning_rate=0.05, momentum=0.9, weight_decay=1e-2)
    update = MaskedUpdate(masked, masks, options)
    plain = torch.optim.SGD(free.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
    for images, labels in small_task().batches(2):
        update.step(F.cross_entropy(masked(images), labels))
        plain.zero_grad()
        F.cross_entropy(free(images), labels).backward()
        plain.step()
        pairs = zip(masked.parameters(), free.parameters(), strict=True)
        assert all(torch.equal(first, second) for first, second in pairs)


def test_each_term_of_the_loss_has_the_gradient_computed_by_hand() -> None:
    task = small_task()
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 2])
    # d CE / d logits is softmax - one-hot, positive for the retain image, negative for the forget one, over B = 2.
    by_hand = (logits.detach().softmax(dim=1) - F.one_hot(labels, 3)) / 2
    for l_e, l_ne in ((True, True), (True, False), (False, True)):
        loss = removal_loss(logits, labels, task, RemovalOptions(l_e=l_e, l_ne=l_ne))
        (gradient,) = torch.autograd.grad(loss, logits)
        expected = by_hand * torch.tensor([[float(l_ne)], [-float(l_e)]])
        assert torch.allclose(gradient, expected, atol=1e-7)


def test_the_bounded_term_has_the_gradient_computed_by_hand() -> None:
    logits = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 2.0]], requires_grad=True)
    labels = torch.tensor([0, 2])
    loss = removal_loss(logits, labels, small_task(), RemovalOptions(l_e_form="bounded", l_ne=False))
    (gradient,) = torch.autograd.grad(loss, logits)
    # d -log(1 - p_y) / d z_k is p_y for k = y, and -p_y p_k / (1 - p_y) for the others.
    p = logits.detach()[1].softmax(dim=0)
    by_hand = torch.stack([-p[2] * p[0] / (1 - p[2]), -p[2] * p[1] / (1 - p[2]), p[2]]) / 2
    assert torch.allclose(gradient, torch.stack([torch.zeros(3), by_hand]), atol=1e-7)


def test_the_bounded_term_stays_exact_where_the_probability_rounds_to_0_and_1() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]])
    found = improbability_loss(logits, torch.tensor([0, 0]))
    assert found.tolist() == pytest.approx([200.0 - math.log(2), 0.0], abs=1e-4)


def test_distillation_on_retain_images_leaves_the_forget_images_out() -> None:
    task, student, options = small_task(), network(), ErwpOptions(distilled_on="retain")
    teacher = Teacher(network(), task, options.beta, options.kappa, options.reduction)
    images, labels = next(iter(task.batches(1, batch_size=12)))
    logits = student(images) + torch.arange(36.0).reshape(12, 3)
    kept = labels != 2
    expected = teacher.loss(images[kept], logits[kept])
    assert distillation(teacher, images, logits, labels, task, options) == expected
    assert distillation(teacher, images, logits, labels, task, ErwpOptions()) != expected
    assert distillation(teacher, images, logits, torch.full((12,), 2), task, options) == 0


def test_the_sum_of_a_step_is_as_many_times_its_mean_as_there_are_images() -> None:
    # 24 images in steps of 8: with SGD without momentum, a sum at an eighth of the rate is the mean.
    rough = {"augmentation": "none", "optimizer": "sgd", "momentum": 0.0, "batch_size": 8, "epochs": 2}
    mean = erwp(network(), small_task(), options=ErwpOptions(learning_rate=8e-3, **rough))
    total = erwp(network(), small_task(), options=ErwpOptions(learning_rate=1e-3, step_loss="sum", **rough))
    for first, second in zip(mean.parameters(), total.parameters(), strict=True):
        assert torch.allclose(first, second, atol=1e-7)


def test_ascent_raises_the_forget_images_cross_entropy() -> None:
    original, task = network(), small_task()
    images = task.images_of(2)
    labels = torch.full((len(images),), 2)
    options = ErwpOptions(augmentation="none", l_ne=False, l_kd=False, learning_rate=1e-3, epochs=3)
    unlearned = erwp(copy.deepcopy(original), task, options=options).eval()
    assert F.cross_entropy(unlearned(images), labels) > F.cross_entropy(original(images), labels)


def test_distillation_alone_leaves_a_model_that_equals_its_teacher_where_it_is() -> None:
    options = ErwpOptions(augmentation="none", l_e=False, l_ne=False, optimizer="sgd", learning_rate=0.1)
    original = network()
    unlearned = erwp(copy.deepcopy(original), small_task(), options=options)
    pairs = zip(unlearned.parameters(), original.parameters(), strict=True)
    assert all(torch.allclose(after, before, atol=1e-6) for after, before in pairs)


def test_no_terms_at_all_change_nothing() -> None:
    options = ErwpOptions(augmentation="none", l_e=False, l_ne=False, l_kd=False, epochs=1)
    original = network()
    unlearned = erwp(copy.deepcopy(original), small_task(), options=options)
    pairs = zip(unlearned.parameters(), original.parameters(), strict=True)
    assert all(torch.equal(after, before) for after, before in pairs)


def test_batch_norm_statistics_move_only_in_training_mode() -> None:
    original = network()
    for mode, moves in (("frozen", False), ("training", True)):
        options = ErwpOptions(augmentation="none", epochs=1, batch_norm=mode)
        unlearned = erwp(copy.deepcopy(original), small_task(), options=options)
        assert torch.equal(unlearned.state_dict()["1.running_mean"], original.state_dict()["1.running_mean"]) != moves


def test_frozen_batch_norm_leaves_other_modules_in_training_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    set_mode(model, RemovalOptions(batch_norm="frozen"))
    assert (model[0].training, model[1].training) == (False, True)
    set_mode(model, RemovalOptions(batch_norm="training"))
    assert (model[0].training, model[1].training) == (True, True)


def test_the_rate_steps_at_the_named_epochs() -> None:
    options = RemovalOptions(learning_rate=1.1e-4, learning_rate_steps=((3, 1.1e-5), (5, 1e-6)))
    assert [rate_of_epoch(options, epoch) for epoch in range(1, 7)] == [1.1e-4, 1.1e-4, 1.1e-5, 1.1e-5, 1e-6, 1e-6]


def test_a_loss_that_is_not_finite_ends_the_removal_with_that_reason() -> None:
    options = ErwpOptions(augmentation="none", optimizer="sgd", learning_rate=1e6, l_kd=False)
    with pytest.raises(TrainingFailedError, match=r"^the loss is not finite \((nan|inf|-inf)\) in removal epoch \d+$"):
        erwp(network(), small_task(), options=options)


def test_images_are_counted_for_search_and_removal() -> None:
    task = small_task()
    options = ErwpOptions(augmentation="none", epochs=4)
    search_task = small_task()
    search(network(), search_task, options)
    erwp(network(), task, options=options)
    looks = search_task.image_passes["forget"]
    assert task.image_passes == {"forget": looks + 4 * 8, "retain": 4 * 16}


def learned_network() -> nn.Module:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for images, labels in small_task().batches(60):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return model.eval()


def recognised(model: nn.Module) -> int:
    model.eval()
    return sum(int((model(images).argmax(dim=1) == labels).sum()) for images, labels in small_task().plain("forget"))


@pytest.mark.slow
def test_removal_stops_after_the_first_epoch_without_a_recognised_forget_image() -> None:
    task = small_task()
    rough = {"augmentation": "none", "l_kd": False, "learning_rate": 1e-3}
    stopping = ErwpOptions(epochs=100, stop_when_forgotten=True, **rough)
    unlearned = erwp(learned_network(), task, options=stopping)
    epochs = task.image_passes["retain"] // 16
    assert 1 < epochs < 100
    assert recognised(unlearned) == 0
    one_less = ErwpOptions(epochs=epochs - 1, **rough)
    assert recognised(erwp(learned_network(), small_task(), options=one_less)) > 0


def test_the_same_seed_gives_the_same_weights() -> None:
    options = ErwpOptions(augmentation="rotation", epochs=2)
    first = erwp(network(), small_task(), options=options).state_dict()
    second = erwp(network(), small_task(), options=options).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
