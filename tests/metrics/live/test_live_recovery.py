from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from support.feature_files import feature_file
from torch import nn

from unlearnbench.datasets.dataset import open_dataset
from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live.recovery import (
    fine_tuning_recovery,
    pruned,
    pruning_recovery,
    rounded,
    rounding_recovery,
)
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.classifier import keep_outputs

LABELS = torch.tensor([0, 1, 2])
PIXELS = torch.eye(3).mul(255).to(torch.uint8).view(3, 1, 1, 3)


def linear(*weights: list[float]) -> nn.Module:
    """Return a network whose logits are rows of weights times the three pixels of an image."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3, len(weights), bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor(weights))
    return model


def live(model: nn.Module, images: Batches | None = None) -> LiveModel:
    shown = images or Batches(PIXELS, LABELS, (0.0,), (1.0,), Augmentation())
    return LiveModel(
        lambda: copy.deepcopy(model).eval(), lambda: shown, lambda: shown, lambda: copy.deepcopy(model).eval()
    )


def file(num_classes: int = 3) -> FeatureFile:
    """Return the feature file, in which the last class is the forget class."""
    return feature_file(np.zeros((3, 1)), LABELS.numpy(), forget=[num_classes - 1], num_classes=num_classes)


def test_weights_are_rounded_channel_by_channel() -> None:
    weight = torch.tensor([[1.0, 0.4, -0.2], [0.0, 0.0, 0.0], [8.0, 3.9, -4.1]])
    # With three bits there are the multiples -3 to 3 of a third of each row's largest.
    expected = torch.tensor([[1.0, 1 / 3, -1 / 3], [0.0, 0.0, 0.0], [8.0, 8 / 3, -16 / 3]])
    assert torch.allclose(rounded(weight, 3), expected)
    assert torch.allclose(rounded(weight, 16), weight, atol=1e-3)


def test_the_smallest_weights_are_pruned() -> None:
    weight = torch.tensor([[3.0, -1.0], [2.0, 1.0]])
    assert torch.equal(pruned(weight, 0.25), torch.tensor([[3.0, 0.0], [2.0, 1.0]]))
    assert torch.equal(pruned(weight, 0.5), torch.tensor([[3.0, 0.0], [2.0, 0.0]]))


def test_what_rounding_brings_back_is_found() -> None:
    # Class 2 lies a hair below class 0 on its own image. With three bits each row has the thirds of its own largest
    # weight: 0.30 of 1.0 becomes 0.33, and 0.29 of 0.58 becomes 0.39.
    hidden = linear([1.0, 0.0, 0.30], [0.0, 1.0, 0.0], [-0.58, 0.0, 0.29])
    found = rounding_recovery(file(), live(hidden), bits=(16, 3))
    assert found.details["before"] == {"forget_accuracy": 0.0, "retain_accuracy": 1.0}
    assert [point["bits"] for point in found.details["curve"]] == [16, 3]
    assert [point["forget_accuracy"] for point in found.details["curve"]] == [0.0, 1.0]
    assert float(found) == 1.0


def test_what_pruning_brings_back_is_found() -> None:
    # The image of class 2 lights the last two pixels, and a weight of -0.28 keeps class 2 below class 0 (0.02 against
    # 0.05). Five weights are 0, so that 0.05 and -0.28 are the next to go.
    hidden = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    with torch.no_grad():
        rows = [[1.0, 0.0, 0.05, 0.0], [0.0, 1.0, 0.0, 0.0], [-1.0, -1.0, 0.3, -0.28]]
        hidden[1].weight.copy_(torch.tensor(rows))
    pixels = torch.tensor([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 255, 255]], dtype=torch.uint8)
    images = Batches(pixels.view(3, 1, 1, 4), LABELS, (0.0,), (1.0,), Augmentation())
    found = pruning_recovery(file(), live(hidden, images), shares=(0.4, 0.6))
    assert found.details["before"] == {"forget_accuracy": 0.0, "retain_accuracy": 1.0}
    assert found.details["curve"] == [
        {"share": 0.4, "forget_accuracy": 0.0, "retain_accuracy": 1.0},
        {"share": 0.6, "forget_accuracy": 1.0, "retain_accuracy": 1.0},
    ]
    assert float(found) == 1.0


def test_the_model_itself_stays_as_it_is() -> None:
    model = linear([1.0, 0.0, 0.3], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.29])
    before = copy.deepcopy(model.state_dict())
    for metric in (rounding_recovery, pruning_recovery, fine_tuning_recovery):
        metric(file(), live(model))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_a_few_images_bring_back_a_class_whose_output_was_deleted() -> None:
    deleted = linear([9.0, 0.0, 0.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0])
    keep_outputs(deleted, torch.tensor([0, 1]))
    found = fine_tuning_recovery(file(), live(deleted), shots=(1,), epochs=30, learning_rate=0.1)
    assert found.details["before"]["forget_accuracy"] == 0.0
    assert found.details["curve"] == [{"shots": 1, "forget_accuracy": 1.0, "retain_accuracy": 1.0}]
    assert float(found) == 1.0


def test_more_shots_hold_the_fewer_ones_and_a_class_with_fewer_images_gives_all() -> None:
    part = open_dataset("digits").train()
    rows = np.concatenate([np.flatnonzero(part.labels == label)[:4] for label in range(3)])
    images = Batches(
        torch.from_numpy(part.images.read(rows)), torch.from_numpy(part.labels[rows]), (0.3,), (0.3,), Augmentation()
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    found = fine_tuning_recovery(file(), live(model, images), shots=(1, 4, 99), epochs=20)
    curve = found.details["curve"]
    assert [point["shots"] for point in curve] == [1, 4, 99]
    assert curve[1]["forget_accuracy"] == curve[2]["forget_accuracy"] == 1.0, "all four images were learned"
    assert float(found) == 1.0
    for order in ((1, 4, 99), (99, 1)):
        assert float(fine_tuning_recovery(file(), live(model, images), shots=order, epochs=20)) == float(found)
    assert curve[0]["forget_accuracy"] < 1.0, "or the order would not matter"


def test_weights_that_are_no_numbers_are_named() -> None:
    broken = linear([float("nan"), 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    with pytest.raises(MetricError, match=r"^1\.weight is not finite$"):
        rounding_recovery(file(), live(broken))
