from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from support.feature_files import feature_file
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.features import FeatureFile
from unlearnbench.metrics.live import zeroed_accuracy as module
from unlearnbench.metrics.live.zeroed_accuracy import zeroed_accuracy
from unlearnbench.metrics.live_model import LiveModel
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.classifier import keep_outputs
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.builtin.relevance import augmented
from unlearnbench.unlearners.task import UnlearningTask


def data(images: Tensor, labels: Tensor) -> Batches:
    channels = images.shape[1]
    return Batches(images, labels, [0.0] * channels, [1.0] * channels, Augmentation())


def file(labels: Tensor, forget: list[int], classes: int, seed: int = 0) -> FeatureFile:
    return feature_file(np.zeros((len(labels), 1)), labels.numpy(), forget=forget, num_classes=classes, seed=seed)


def live(model: nn.Module, limited: Batches, test: Batches | None = None) -> LiveModel:
    def load() -> nn.Module:
        return copy.deepcopy(model).eval()

    return LiveModel(load, lambda: limited, lambda: limited if test is None else test, load)


class Pixels(nn.Module):
    """Four pixels, two classes; class 1 adds a strong, a middling and two weak pixels against a threshold of 0.5."""

    def __init__(self) -> None:
        super().__init__()
        self.output = nn.Linear(4, 2)
        with torch.no_grad():
            self.output.weight.copy_(torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]))
            self.output.bias.copy_(torch.tensor([0.5, 0.0]))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(images.flatten(1))
        return logits


# Class 1 adds up to 0.8 + 0.4 + 0.08 + 0.04; in the test part a second image has a dark second pixel. Class 0 is dark.
LIMITED = data(
    torch.tensor([[204, 102, 20, 10], [0, 0, 0, 0]], dtype=torch.uint8).view(2, 1, 1, 4), torch.tensor([1, 0])
)
TEST = data(
    torch.tensor([[204, 102, 20, 10], [204, 0, 20, 10], [0, 0, 0, 0]], dtype=torch.uint8).view(3, 1, 1, 4),
    torch.tensor([1, 1, 0]),
)


# The gradients of the loss of class 1 are (1 - p) times the pixels in both rows, so that the order is [0, 0], [1, 0],
# [0, 1], [1, 1], [0, 2], [1, 2], [0, 3], [1, 3]; the weights of row 0 are 0 anyway.
@pytest.mark.parametrize(
    ("order", "share", "expected"),
    [
        ("high", 0.0, 1.0),
        ("high", 0.125, 1.0),  # [0, 0], which was 0
        ("high", 0.25, 0.5),  # without the strong pixel 0.4 + 0.078 + 0.039 wins in the first image alone
        ("low", 0.25, 1.0),
        ("low", 0.5, 1.0),
        ("low", 0.75, 1.0),  # 0.8 alone is enough
        ("low", 1.0, 0.0),
        ("high", 1.0, 0.0),
    ],
)
def test_counted_by_hand(order: Any, share: float, expected: float) -> None:
    found = zeroed_accuracy(
        file(TEST.labels, [1], 2), live(Pixels(), LIMITED, TEST), share=share, order=order, augmentation="none"
    )

    assert found == expected
    assert found.details == {"by_class": {"1": expected}}


def test_the_accuracy_can_be_read_on_the_limited_images() -> None:
    found = zeroed_accuracy(
        file(TEST.labels, [1], 2), live(Pixels(), LIMITED, TEST), share=0.25, augmentation="none", images="limited"
    )

    assert found == 1.0


def random_problem(seed: int = 0) -> tuple[nn.Module, Batches, Batches]:
    """Return a network with two convolutions and batch norm, briefly trained, and its images."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 2), nn.Flatten(), nn.Linear(36, 4)
    )
    labels = torch.arange(160) % 4
    images = (40 * labels[:, None, None, None] + torch.randint(90, (160, 3, 6, 6))).to(torch.uint8)
    limited, test = data(images[:40], labels[:40]), data(images[40:], labels[40:])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(15):
        optimizer.zero_grad()
        F.cross_entropy(model(limited.plain(torch.arange(40))), limited.labels).backward()
        optimizer.step()
    model.zero_grad()
    return model.eval(), limited, test


def by_loop(
    model: nn.Module,
    limited: Batches,
    test: Batches,
    label: int,
    share: float,
    order: str,
    augmentation: Any,
    seed: int,
) -> float:
    """Zero one position after the other, in the order of numpy's sort, and count the images."""
    model = copy.deepcopy(model)
    recipe = TrainingRecipe(epochs=1, batch_size=1, learning_rate=0.1)
    task = UnlearningTask(limited, (label,), 4, recipe, seed, lambda: nn.Identity())
    images = augmented(task.pixels(task.images_of(label)), augmentation, task.generator("augmentation", label))
    F.cross_entropy(model(task.normalise(images)), torch.full((len(images),), label)).backward()
    for name in ("0.weight", "3.weight", "5.weight"):
        parameter = model.get_parameter(name)
        assert parameter.grad is not None
        size = parameter.grad.abs().flatten().numpy()
        ranked = np.argsort(-size if order == "high" else size, kind="stable")
        for position in ranked[: int(np.ceil(round(share * len(size), 6)))]:
            parameter.data.view(-1)[int(position)] = 0
    chosen = test.plain(torch.nonzero(test.labels == label).flatten())
    return float((model(chosen).argmax(dim=1) == label).float().mean())


@pytest.mark.parametrize("augmentation", ["grayscale", "vertical_flip", "rotation", "affine"])
@pytest.mark.parametrize("order", ["high", "low"])
def test_it_finds_what_a_plain_loop_finds(order: Any, augmentation: Any) -> None:
    model, limited, test = random_problem()
    held, features = live(model, limited, test), file(test.labels, [1, 3], 4, seed=5)
    seen = []
    for share in (0.0, 0.03, 0.1, 0.3, 0.9):
        found = zeroed_accuracy(features, held, share=share, order=order, augmentation=augmentation)
        each = [by_loop(model, limited, test, label, share, order, augmentation, 5) for label in (1, 3)]
        assert found.details == {"by_class": {"1": pytest.approx(each[0]), "3": pytest.approx(each[1])}}
        assert found == pytest.approx(sum(each) / 2)
        seen.append(float(found))
    assert len(set(seen)) > 1


def test_a_share_of_0_is_the_plain_accuracy_whatever_the_order() -> None:
    model, limited, test = random_problem()
    features, held = file(test.labels, [2], 4), live(model, limited, test)
    chosen = test.plain(torch.nonzero(test.labels == 2).flatten())

    found = [zeroed_accuracy(features, held, share=0.0, order=order) for order in ("high", "low", "random")]

    assert found == pytest.approx([float((model(chosen).argmax(dim=1) == 2).float().mean())] * 3)


def test_random_orders_are_the_same_for_a_seed_and_nested_in_the_share() -> None:
    model, _, _ = random_problem()
    parameters = [model.get_parameter(name) for name in ("0.weight", "3.weight", "5.weight")]
    scores = [module._random_scores(parameters, seed, 1) for seed in (0, 0, 1)]
    masks = [[module._masks(s, share, "layer", largest=True) for share in (0.1, 0.4)] for s in scores]

    for few, more in masks:
        assert all((small <= large).all() for small, large in zip(few, more, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(masks[0][0], masks[1][0], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(masks[0][0], masks[2][0], strict=True))


@pytest.mark.parametrize("largest", [True, False])
def test_sorted_over_the_model_one_layer_can_lose_all(largest: bool) -> None:
    scores = [torch.tensor([[3.0, 4.0], [9.0, 8.0]]), torch.tensor([1.0, 2.0])]

    by_layer = module._masks(scores, 0.5, "layer", largest=largest)
    by_model = module._masks(scores, 0.5, "model", largest=largest)

    if largest:
        assert [mask.tolist() for mask in by_layer] == [[[False, False], [True, True]], [False, True]]
        assert [mask.tolist() for mask in by_model] == [[[False, True], [True, True]], [False, False]]
    else:
        assert [mask.tolist() for mask in by_layer] == [[[True, True], [False, False]], [True, False]]
        assert [mask.tolist() for mask in by_model] == [[[True, False], [False, False]], [True, True]]


def test_all_layers_take_biases_in() -> None:
    labels = torch.tensor([0])
    dark = data(torch.zeros(1, 1, 1, 4, dtype=torch.uint8), labels)
    model = Pixels()

    found = [
        zeroed_accuracy(file(labels, [0], 2), live(model, dark), share=1.0, layers=layers, augmentation="none")
        for layers in ("weights", "all")
    ]

    # Class 0 depends on its bias; with the bias at 0 both logits are 0, and the first class wins the tie.
    assert found == [1.0, 1.0]
    with torch.no_grad():
        model.output.bias.copy_(torch.tensor([0.0, 0.5]))
    labels_of_one = torch.tensor([1])
    of_one = data(torch.zeros(1, 1, 1, 4, dtype=torch.uint8), labels_of_one)
    found = [
        zeroed_accuracy(file(labels_of_one, [1], 2), live(model, of_one), share=1.0, layers=layers, augmentation="none")
        for layers in ("weights", "all")
    ]
    assert found == [1.0, 0.0]


def test_gradients_are_computed_once_for_all_shares_and_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    model, limited, test = random_problem()
    features, held = file(test.labels, [1, 3], 4), live(model, limited, test)
    first = zeroed_accuracy(features, held, share=0.1, order="low")
    assert set(held.kept) == {("zeroed_accuracy", "weights", "grayscale", label) for label in (1, 3)}
    monkeypatch.setattr(module, "KEPT_VALUES", 0)

    alone = live(model, limited, test)

    assert zeroed_accuracy(features, alone, share=0.1, order="low").details == first.details
    assert alone.kept == {}


def test_the_model_is_as_it_was_after_each_class() -> None:
    model, limited, test = random_problem()
    before = copy.deepcopy(model.state_dict())
    held = LiveModel(lambda: model, lambda: limited, lambda: test, lambda: model)

    zeroed_accuracy(file(test.labels, [0, 1], 4), held, share=0.5)

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_class_without_an_output_is_named() -> None:
    model, limited, test = random_problem()
    keep_outputs(model, torch.tensor([0, 1]))

    with pytest.raises(MetricError, match=r"^the model has no output for the classes \[3\]$"):
        zeroed_accuracy(file(test.labels, [1, 3], 4), live(model, limited, test))


def test_a_class_without_a_test_image_is_named() -> None:
    model, limited, test = random_problem()
    few = data(torch.zeros(1, 3, 6, 6, dtype=torch.uint8), torch.tensor([1]))

    with pytest.raises(MetricError, match=r"^there is no image of class 3 to read its accuracy on$"):
        zeroed_accuracy(file(test.labels, [1, 3], 4), live(model, limited, few))


def test_a_gradient_that_is_no_number_ends_with_a_reason() -> None:
    model, limited, test = random_problem()
    with torch.no_grad():
        model.get_parameter("3.weight").fill_(float("inf"))

    with pytest.raises(MetricError, match=r"^the gradient of class 1 is not finite$"):
        zeroed_accuracy(file(test.labels, [1], 4), live(model, limited, test))
