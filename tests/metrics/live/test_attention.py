from __future__ import annotations

import copy
from typing import Any, Literal

import numpy as np
import pytest
import torch
from support.feature_files import feature_file
from torch import nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.gradcam import class_activation_maps, entropy, shift
from unlearnbench.metrics.live.attention import attention_entropy, attention_shift
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.classifier import keep_outputs

Images = Literal["forget", "retain"]
LABELS = torch.tensor([0, 1, 2, 2])
# Two places each, in 255ths: all light in one place, half in each, three quarters and one quarter, all in the other.
PLACES = torch.tensor([[255, 0], [255, 255], [255, 85], [0, 255]], dtype=torch.uint8)


def pictures() -> Batches:
    return Batches(PLACES.view(4, 1, 1, 2), LABELS, (0.0,), (1.0,), Augmentation())


def looking(*weights: float) -> nn.Module:
    """Return a network whose map of a class is the image times its weight; for a negative weight the map is empty."""
    model = nn.Sequential(
        nn.Conv2d(1, 1, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, len(weights), bias=False)
    )
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        model[3].weight.copy_(torch.tensor(weights)[:, None])
    return model


class Flip(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flip(-1)


def mirrored(model: nn.Module) -> nn.Module:
    """Return a network that sees the places in reverse order."""
    return nn.Sequential(Flip(), *copy.deepcopy(model))


def live(model: nn.Module, original: nn.Module | None = None) -> LiveModel:
    before = model if original is None else original
    return LiveModel(lambda: copy.deepcopy(model).eval(), pictures, pictures, lambda: copy.deepcopy(before).eval())


def file(num_classes: int = 3) -> FeatureFile:
    """Return the feature file, in which the last class is the forget class."""
    return feature_file(np.zeros((4, 1)), LABELS.numpy(), forget=[num_classes - 1], num_classes=num_classes)


EVEN = looking(1.0, 1.0, 1.0)
# This is the entropy in bits of 3/4 and 1/4: 3/4 log2(4/3) + 1/4 log2(4).
THREE_QUARTERS = 2 - 0.75 * np.log2(3)


@pytest.mark.parametrize(("images", "expected"), [("forget", (THREE_QUARTERS + 0) / 2), ("retain", (0 + 1) / 2)])
def test_entropy_is_the_mean_over_the_test_images(images: Images, expected: float) -> None:
    found = attention_entropy(file(), live(EVEN), images=images)

    assert found == pytest.approx(expected)
    assert found.details == {"images": 2, "empty_maps": 0}


@pytest.mark.parametrize(("images", "expected"), [("forget", (0.5 + 1) / 2), ("retain", (1 + 0) / 2)])
def test_shift_is_the_mean_over_the_test_images(images: Images, expected: float) -> None:
    found = attention_shift(file(), live(mirrored(EVEN), EVEN), images=images)

    assert found == pytest.approx(expected)
    assert found.details == {"images": 2, "empty_maps": 0, "empty_maps_of_original": 0}


def test_originals_own_shift_is_0() -> None:
    assert attention_shift(file(), live(EVEN)) == 0.0


def test_each_image_is_explained_by_its_own_label() -> None:
    # A negative weight gives class 0 no map, so that its only image has no entropy and is left out and counted.
    found = attention_entropy(file(), live(looking(-1.0, 1.0, 1.0)), images="retain")

    assert found == pytest.approx(1.0)
    assert found.details == {"images": 2, "empty_maps": 1}


def test_all_mass_has_moved_where_the_map_is_empty_afterwards() -> None:
    found = attention_shift(file(), live(looking(-1.0, 1.0, 1.0), EVEN), images="retain")

    assert found == pytest.approx((1 + 0) / 2)
    assert found.details == {"images": 2, "empty_maps": 1, "empty_maps_of_original": 0}


def test_what_had_no_map_before_is_left_out_of_the_shift() -> None:
    found = attention_shift(file(), live(mirrored(EVEN), looking(1.0, -1.0, 1.0)), images="retain")

    assert found == pytest.approx(1.0)
    assert found.details == {"images": 2, "empty_maps": 0, "empty_maps_of_original": 1}


def test_a_model_for_which_nothing_speaks_for_the_class_has_no_entropy() -> None:
    emptied = looking(1.0, 1.0, -1.0)

    with pytest.raises(MetricError, match=r"^all 2 maps are empty: nothing in them speaks for the class$"):
        attention_entropy(file(), live(emptied, EVEN))
    assert attention_shift(file(), live(emptied, EVEN)) == 1.0


@pytest.mark.parametrize("metric", [attention_entropy, attention_shift])
def test_a_deleted_output_cannot_be_explained_but_the_predicted_class_can(metric: Any) -> None:
    deleted = copy.deepcopy(EVEN)
    keep_outputs(deleted, torch.tensor([0, 1]))

    with pytest.raises(MetricError, match=r"^the model has no output for the classes \[2\]$"):
        metric(file(), live(deleted, EVEN))
    assert metric(file(), live(deleted, EVEN), images="retain") == metric(file(), live(EVEN), images="retain")
    assert metric(file(), live(deleted, EVEN), explained="predicted") == metric(file(), live(EVEN))


def test_the_values_are_those_of_a_plain_loop() -> None:
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(45, 16), nn.ReLU(), nn.Linear(16, 3))
    models = [nn.Sequential(nn.Conv2d(1, 5, 2), nn.ReLU(), *copy.deepcopy(head)).eval() for _ in range(2)]
    images = torch.randint(256, (40, 1, 4, 4), dtype=torch.uint8)
    test = Batches(images, torch.arange(40) % 3, (0.5,), (0.5,), Augmentation())
    held = LiveModel(lambda: models[0], lambda: test, lambda: test, lambda: models[1])
    one = [
        [class_activation_maps(m, test.plain(torch.tensor([i])), test.labels[[i]]) for m in models] for i in range(40)
    ]
    moved = [shift(before, after).item() for after, before in one]
    spread = [entropy(after).item() for after, _ in one]

    for images_of, classes in (("forget", [2]), ("retain", [0, 1])):
        chosen = [i for i in range(40) if i % 3 in classes]
        assert attention_shift(file(), held, images=images_of) == pytest.approx(np.nanmean(np.take(moved, chosen)))
        assert attention_entropy(file(), held, images=images_of) == pytest.approx(np.nanmean(np.take(spread, chosen)))


def test_metrics_of_a_cell_share_the_maps() -> None:
    loaded: list[str] = []

    def load(name: str) -> nn.Module:
        loaded.append(name)
        return copy.deepcopy(EVEN).eval()

    held = LiveModel(lambda: load("judged"), pictures, pictures, lambda: load("original"))
    for _ in range(2):
        attention_entropy(file(), held)
        attention_shift(file(), held)

    assert sorted(loaded) == ["judged", "original"]


def test_maps_of_two_sizes_cannot_be_compared() -> None:
    larger = nn.Sequential(nn.Upsample(scale_factor=2), *copy.deepcopy(EVEN))

    with pytest.raises(MetricError, match=r"^Original's maps are 2x4, the model's 1x2; they cannot be compared$"):
        attention_shift(file(), live(EVEN, larger))


def test_a_class_without_test_images_is_named() -> None:
    with pytest.raises(MetricError, match=r"^no test image of classes \[3\]$"):
        attention_entropy(file(num_classes=4), live(looking(1.0, 1.0, 1.0, 1.0)))


def test_weights_that_are_no_numbers_end_with_a_reason() -> None:
    with pytest.raises(MetricError, match=r"^a class activation map is not finite$"):
        attention_entropy(file(), live(looking(1.0, 1.0, float("nan"))))
