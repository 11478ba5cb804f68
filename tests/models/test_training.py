"""The training of reference models."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlearnbench.errors import InvalidFileError, TrainingFailedError
from unlearnbench.models import training
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.build import Network, input_shape
from unlearnbench.models.recipe import TrainingRecipe, full_size_epochs
from unlearnbench.models.training import (
    ReferenceTraining,
    _whole_state,
    check_finite,
    learning_rate,
    recipe_optimizer,
    resolve_precision,
)

NETWORK = Network("digits_net", {"width": 4}, 10, (1, 8, 8))
RECIPE = TrainingRecipe(epochs=4, batch_size=16, learning_rate=0.1, schedule="one_cycle", weight_decay=1e-4)
FIELDS: dict[str, dict[str, object]] = {
    "nesterov": {"nesterov": True},
    "resolutions": {"resolutions": ((1, 4), (2, 6))},
}


def recipe(**settings: object) -> TrainingRecipe:
    return TrainingRecipe.model_validate({"epochs": 10, "batch_size": 16, "learning_rate": 0.1, **settings})


def data(count: int = 40) -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, 1, 8, 8), generator=generator).to(torch.uint8)
    return Batches(images, torch.arange(count) % 10, (0.5,), (0.3,), Augmentation(padding=1))


def train(checkpoint: Path, settings: TrainingRecipe = RECIPE, seed: int = 0) -> tuple[nn.Module, ReferenceTraining]:
    batches = data()
    job = ReferenceTraining(NETWORK.build(seed, "original"), batches, torch.arange(40), settings, seed, "original")
    job.train(checkpoint)
    return job.model, job


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_steps_lower_the_rate_as_torch_does() -> None:
    settings = recipe(milestones=(3, 5, 9), factor=0.2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 9], gamma=0.2)
    for epoch in range(10):
        for step in range(7):
            rate = learning_rate(settings, epoch * 7 + step, 7)
            assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize(
    ("step", "rate"),
    [(0, 0.1), (29, 0.1), (30, 0.02), (31, 0.02), (59, 0.02), (60, 0.004), (99, 0.004)],
)
def test_the_rate_is_lowered_after_a_milestone_epoch(step: int, rate: float) -> None:
    assert learning_rate(recipe(milestones=(3, 6), factor=0.2), step, 10) == pytest.approx(rate)


def test_a_constant_rate_stays() -> None:
    assert {learning_rate(recipe(schedule="constant"), step, 10) for step in range(100)} == {0.1}


def test_one_cycle_rises_linearly_and_falls_by_a_cosine() -> None:
    # There are 101 steps, so that step s is at s / 100 and the peak is at step 30.
    settings = recipe(epochs=1, schedule="one_cycle")
    rates = [learning_rate(settings, step, 101) for step in range(101)]
    assert rates[0] == pytest.approx(0.004)
    assert rates[15] == pytest.approx((0.004 + 0.1) / 2)
    assert rates[30] == pytest.approx(0.1)
    assert rates[65] == pytest.approx((0.1 + 1e-5) / 2)
    assert rates[100] == pytest.approx(1e-5)
    assert rates[:31] == sorted(rates[:31])
    assert rates[30:] == sorted(rates[30:], reverse=True)


def test_a_one_cycle_of_one_step_has_a_rate() -> None:
    assert learning_rate(recipe(epochs=1, schedule="one_cycle"), 0, 1) == pytest.approx(0.004)


def test_a_training_repeats_bit_for_bit(tmp_path: Path) -> None:
    first, _ = train(tmp_path / "a")
    torch.rand(3)
    second, _ = train(tmp_path / "b")
    assert same(weights(first), weights(second))
    other, _ = train(tmp_path / "c", seed=1)
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("settings", [{}, *FIELDS.values()], ids=["plain", *FIELDS])
@pytest.mark.parametrize("epochs_before", [1, 3])
def test_a_training_taken_up_again_ends_in_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs_before: int, settings: dict[str, object]
) -> None:
    chosen = RECIPE.model_copy(update=settings)
    whole, _ = train(tmp_path / "never", chosen)
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0.0)
    checkpoint = tmp_path / "checkpoint.pt"
    original = ReferenceTraining._train_epoch

    def interrupted(job: ReferenceTraining) -> None:
        if job.epoch == epochs_before:
            raise KeyboardInterrupt
        original(job)

    with monkeypatch.context() as patch:
        patch.setattr(ReferenceTraining, "_train_epoch", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(checkpoint, chosen)
    read: list[int] = []
    job = ReferenceTraining(
        NETWORK.build(5, "original"), data(), torch.arange(40), chosen, 0, "original", advance=read.append
    )
    job.train(checkpoint)
    assert same(weights(whole), weights(job.model))
    # Smaller images count as much less, and only whole numbers are told.
    assert read[0] == pytest.approx(full_size_epochs(chosen, 8, 8, epochs_before) * 40, abs=1)
    assert sum(read) == pytest.approx(full_size_epochs(chosen, 8, 8) * 40, abs=1)


def test_what_an_earlier_attempt_has_read_is_told_apart(tmp_path: Path) -> None:
    read: list[int] = []
    earlier: list[int] = []

    def job() -> ReferenceTraining:
        model = NETWORK.build(5, "original")
        told = {"advance": read.append, "resumed": earlier.append}
        return ReferenceTraining(model, data(), torch.arange(40), RECIPE, 0, "original", **told)

    begun = job()
    begun._train_epoch()
    begun.epoch = 1
    begun.save(tmp_path / "checkpoint.pt")
    read.clear()
    job().train(tmp_path / "checkpoint.pt")
    assert earlier == [40]
    assert sum(read) == (RECIPE.epochs - 1) * 40


@pytest.mark.parametrize("settings", FIELDS.values(), ids=FIELDS)
def test_a_field_of_the_recipe_changes_the_weights(tmp_path: Path, settings: dict[str, object]) -> None:
    plain, _ = train(tmp_path / "a")
    other, _ = train(tmp_path / "b", RECIPE.model_copy(update=settings))
    assert not same(weights(plain), weights(other))


def test_nesterov_momentum_is_that_of_its_paper() -> None:
    # One weight, loss w^2 / 2, in float64: v <- m v + g, w <- w - r (g + m v).
    settings = recipe(momentum=0.5, nesterov=True)
    model = nn.Linear(1, 1, bias=False, dtype=torch.float64)
    nn.init.ones_(model.weight)
    optimizer, expected, velocity = recipe_optimizer(model, settings), 1.0, 0.0
    for _ in range(3):
        optimizer.zero_grad()
        (model.weight**2 / 2).sum().backward()
        optimizer.step()
        gradient = expected
        velocity = 0.5 * velocity + gradient
        expected -= 0.1 * (gradient + 0.5 * velocity)
        assert model.weight.item() == pytest.approx(expected, rel=1e-12)


def test_images_grow_to_their_full_size(tmp_path: Path) -> None:
    settings = RECIPE.model_copy(update=FIELDS["resolutions"])
    job = ReferenceTraining(NETWORK.build(0, "original"), data(), torch.arange(40), settings, 0, "original")
    seen: list[tuple[int, ...]] = []
    job.model.register_forward_pre_hook(lambda _, inputs: seen.append(tuple(inputs[0].shape[-2:])))
    job.train()
    # 40 images are 3 steps of 16.
    assert seen == [(4, 4)] * 3 + [(6, 6)] * 3 + [(8, 8)] * 6


def test_a_checkpoint_is_written_only_now_and_then(tmp_path: Path) -> None:
    train(tmp_path / "checkpoint.pt")
    assert list(tmp_path.iterdir()) == []


def assert_starts_anew(checkpoint: Path, what: str) -> None:
    """Check that a training names a checkpoint, drops it, and ends as one that never saw it."""
    whole, _ = train(checkpoint.with_name("never"))
    said: list[str] = []
    job = ReferenceTraining(
        NETWORK.build(0, "original"), data(), torch.arange(40), RECIPE, 0, "original", say=said.append
    )
    job.train(checkpoint)
    assert said == [f"{checkpoint} {what}; the training starts anew"]
    assert same(weights(whole), weights(job.model))
    assert not checkpoint.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut"])
def test_a_damaged_checkpoint_is_named_and_not_used(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "checkpoint.pt").write_bytes(content)
    assert_starts_anew(tmp_path / "checkpoint.pt", "is damaged")


def test_a_truncated_checkpoint_is_named_and_not_used(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(tmp_path / "never")[1].save(checkpoint)
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    assert_starts_anew(checkpoint, "is damaged")


@pytest.mark.parametrize("content", [{"a": 1}, [1, 2], 7, None, {"model": {}, "optimizer": {}, "epoch": 1}])
def test_a_checkpoint_that_loads_but_is_none_of_a_training_is_dropped(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "checkpoint.pt")
    assert_starts_anew(tmp_path / "checkpoint.pt", "is damaged")


def later_epoch(state: dict[str, Any]) -> None:
    state["epoch"] = 10**9


def nudged_weight(state: dict[str, Any]) -> None:
    next(iter(state["model"].values())).view(-1)[0] += 1e-3


def no_numbers(state: dict[str, Any]) -> None:
    next(iter(state["model"].values())).fill_(math.nan)


def nudged_momentum(state: dict[str, Any]) -> None:
    state["optimizer"]["state"][0]["momentum_buffer"].view(-1)[0] += 1e-3


@pytest.mark.parametrize("change", [later_epoch, nudged_weight, no_numbers, nudged_momentum])
def test_a_checkpoint_that_was_changed_is_dropped(tmp_path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(tmp_path / "never")[1].save(checkpoint)
    state = torch.load(checkpoint, weights_only=True)
    change(state)
    torch.save(state, checkpoint)
    assert_starts_anew(checkpoint, "is damaged")


@pytest.mark.parametrize("other", ["seed", "recipe", "network"])
def test_a_checkpoint_of_another_training_is_dropped(tmp_path: Path, other: str) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    settings = RECIPE.model_copy(update={"weight_decay": 0.0}) if other == "recipe" else RECIPE
    network = Network("digits_net", {"width": 5}, 10, (1, 8, 8)) if other == "network" else NETWORK
    seed = 1 if other == "seed" else 0
    job = ReferenceTraining(network.build(0, "original"), data(), torch.arange(40), settings, seed, "original")
    job.save(checkpoint)
    assert_starts_anew(checkpoint, "is that of another training")


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    with pytest.raises(TrainingFailedError) as caught:
        train(tmp_path / "checkpoint.pt", recipe(learning_rate=1e30))
    assert str(caught.value) == "the loss is not finite (nan) in epoch 1 of Original"


@pytest.mark.parametrize("loss", [math.inf, -math.inf, math.nan])
def test_only_finite_losses_pass(loss: float) -> None:
    check_finite(1e38, "step 1")
    with pytest.raises(TrainingFailedError) as caught:
        check_finite(loss, "step 2")
    assert str(caught.value) == f"the loss is not finite ({loss}) in step 2"


def test_original_and_retrained_start_from_weights_of_their_own() -> None:
    starts = [weights(NETWORK.build(seed, role)) for seed in (0, 1) for role in ("original", "fdr")]
    kernels = [start["0.weight"] for start in starts]
    assert all(not torch.equal(kernels[i], kernels[j]) for i in range(4) for j in range(i))
    assert same(starts[0], weights(NETWORK.build(0, "original")))


def test_a_fresh_network_leaves_torch_s_random_state_alone() -> None:
    torch.manual_seed(3)
    state = torch.get_rng_state()
    NETWORK.build(0, "original")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_trained_network_is_in_evaluation_mode(tmp_path: Path) -> None:
    model, _ = train(tmp_path / "checkpoint.pt")
    assert not any(module.training for module in model.modules())


def test_the_network_sees_the_crop() -> None:
    assert input_shape((3, 40, 60), recipe()) == (3, 40, 60)
    assert input_shape((3, 40, 60), recipe(crop=32)) == (3, 32, 32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_named_precision_is_taken(precision: str) -> None:
    assert resolve_precision(precision, torch.device("cpu")) == precision
    assert resolve_precision("auto", torch.device("cpu")) in {"float32", "bfloat16"}
    assert resolve_precision("auto", torch.device("meta")) == "float32"


def test_one_image_more_than_batches_hold_can_be_trained_on() -> None:
    layers = (nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))
    steps: list[int] = []
    model = nn.Sequential(*layers)
    ReferenceTraining(model, data(33), torch.arange(33), RECIPE, 0, "original", advance=steps.append).train()
    assert steps == [16, 17] * RECIPE.epochs


def test_a_checkpoint_that_cannot_be_read_is_no_damaged_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidFileError, match="cannot be read"):
        _whole_state(tmp_path)
    assert _whole_state(tmp_path / "gone") == {}
