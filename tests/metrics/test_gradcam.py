"""Class activation maps: counted by hand, compared with torchcam, and for networks that could break them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from scipy.stats import entropy as scipy_entropy
from torch import Tensor, nn

from unlearnbench.errors import MetricError
from unlearnbench.metrics.gradcam import class_activation_maps, entropy, map_layer, shift
from unlearnbench.models.build import Network
from unlearnbench.models.classifier import keep_outputs


class Residual(nn.Module):
    """A network with pitfalls: one module that is called several times, in place, before and after the pooling."""

    classifier_name = "output"

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.body = nn.Conv2d(6, 6, 3, padding=1)
        self.activation = nn.ReLU(inplace=True)
        self.output = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = self.activation(self.stem(images))
        values = self.activation(values + self.body(values))
        pooled = self.activation(values.mean(dim=(2, 3), keepdim=True))
        logits: Tensor = self.output(pooled.flatten(1))
        return logits


class InPlaceAfterwards(nn.Module):
    """A network that works in place on its last feature map, as torchvision's DenseNet does."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(1, 6, 3)
        self.output = nn.Linear(6, 10)

    def forward(self, images: Tensor) -> Tensor:
        values = nn.functional.relu(self.features(images), inplace=True)
        logits: Tensor = self.output(values.mean(dim=(2, 3)))
        return logits


def network(name: str) -> tuple[nn.Module, Tensor]:
    """Return a network with random weights, and six random images for it."""
    own = {"residual": Residual, "in_place": InPlaceAfterwards}
    shapes = {"digits_net": (1, 8, 8), "resnet20": (3, 32, 32), "resnet18": (3, 64, 64), "mobilenet_v2": (3, 64, 64)}
    torch.manual_seed(3)
    shape = shapes.get(name, (1, 8, 8))
    model = own[name]() if name in own else Network(name, {}, 10, shape).unfilled(5)
    if name not in own:
        # With the statistics of a new network, activations would fade layer by layer.
        model.train()(torch.randn(16, *shape))
    return model.eval(), torch.randn(6, *shape)


NETWORKS = {
    "digits_net": "10",
    "resnet20": "features.stage3",
    "resnet18": "layer4",
    "mobilenet_v2": "features",
    "residual": "activation",
    "in_place": "features",
}


def by_torchcam(model: nn.Module, images: Tensor, labels: Tensor, layer: str) -> Tensor:
    """Return the maps of an independent implementation."""
    methods = pytest.importorskip("torchcam.methods", reason="torchcam, of the extra `test`, is not installed")
    with methods.GradCAM(model, target_layer=layer) as oracle:
        (found,) = oracle(labels.tolist(), model(images), normalized=False)
    maps: Tensor = found.float()
    assert maps.max() > 0
    return maps


def two_maps(first: list[float], second: list[float]) -> nn.Module:
    """Return a network whose feature maps are the image and twice the image, and whose outputs weigh their means."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)
    )
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
        model[4].weight.copy_(torch.tensor([first, second]))
    return model.eval()


def test_a_map_counted_by_hand() -> None:
    # Each output is w_1 mean(A) + w_2 mean(2 A) over four places, so that a_k = w_k / 4 and the map is
    # ReLU((w_1 + 2 w_2) A / 4): for class 0 (3 + 2) / 4 A, for class 1 (-1 - 2) / 4 A, which is cut at 0.
    model = two_maps([3.0, 1.0], [-1.0, -1.0])
    image = torch.tensor([[0.0, 1.0], [2.0, 4.0]]).view(1, 1, 2, 2)

    maps = class_activation_maps(model, image.repeat(2, 1, 1, 1), torch.tensor([0, 1]))

    assert maps.tolist() == [[[0.0, 1.25], [2.5, 5.0]], [[0.0, 0.0], [0.0, 0.0]]]


# torchcam follows the last call of a module whatever its size, and sees what later modules do in place; see below.
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NETWORKS.keys() - {"residual", "in_place"}))
def test_maps_are_those_of_torchcam(name: str) -> None:
    model, images = network(name)
    labels = torch.arange(6)

    maps = class_activation_maps(model, images, labels)

    expected = by_torchcam(model, images, labels, NETWORKS[name])
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))


def test_of_a_module_that_is_called_several_times_the_last_map_counts() -> None:
    model, images = network("residual")
    assert isinstance(model, Residual)
    labels = torch.arange(6)

    maps = class_activation_maps(model, images, labels)

    values = model.stem(images).relu()
    values = (values + model.body(values)).relu().detach().requires_grad_()
    logits = model.output(values.mean(dim=(2, 3)).relu())
    (gradient,) = torch.autograd.grad(logits[torch.arange(6), labels].sum(), values)
    expected = torch.einsum("nk,nkhw->nhw", gradient.mean(dim=(2, 3)), values).relu()
    assert torch.allclose(maps, expected, atol=1e-7)
    assert maps.max() > 0


def test_what_happens_in_place_afterwards_does_not_reach_the_map() -> None:
    model, images = network("in_place")
    assert isinstance(model, InPlaceAfterwards)
    labels = torch.arange(6)

    maps = class_activation_maps(model, images, labels)

    values = model.features(images).detach().requires_grad_()
    logits = model.output(values.relu().mean(dim=(2, 3)))
    (gradient,) = torch.autograd.grad(logits[torch.arange(6), labels].sum(), values)
    expected = torch.einsum("nk,nkhw->nhw", gradient.mean(dim=(2, 3)), values).relu()
    assert torch.allclose(maps, expected, atol=1e-7)
    assert maps.max() > 0


@pytest.mark.parametrize(("name", "layer"), NETWORKS.items())
def test_the_last_map_with_more_than_one_place_is_found(name: str, layer: str) -> None:
    model, images = network(name)

    assert map_layer(model, images[:1]) == layer


@pytest.mark.parametrize(("name", "given"), [("resnet20", "features.stage2"), ("resnet18", "layer3")])
def test_another_layer_can_be_named(name: str, given: str) -> None:
    model, images = network(name)
    labels = torch.arange(6)

    maps = class_activation_maps(model, images, labels, layer=given)

    expected = by_torchcam(model, images, labels, given)
    assert torch.allclose(maps, expected, rtol=1e-4, atol=1e-6 * float(expected.max()))
    assert maps.shape[1:] != class_activation_maps(model, images, labels).shape[1:]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_as_before(name: str) -> None:
    model, images = network(name)
    before = copy.deepcopy(model.state_dict())

    maps = class_activation_maps(model, images, torch.arange(6))

    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    # The network's own hook, which takes the logits from its output, stays.
    assert not any(module._forward_hooks for module in [*model.modules()][1:])
    assert not maps.requires_grad
    assert torch.is_grad_enabled()


def test_a_failing_pass_leaves_no_hook() -> None:
    model, images = network("digits_net")

    with pytest.raises(RuntimeError):
        class_activation_maps(model, images[:, :, :2, :2], torch.arange(6))
    with pytest.raises(MetricError):
        class_activation_maps(model, images, torch.full((6,), 99))

    # The network's own hook, which takes the logits from its output, stays.
    assert not any(module._forward_hooks for module in [*model.modules()][1:])
    assert torch.is_grad_enabled()


def test_an_image_has_the_same_map_alone_and_among_others() -> None:
    model, images = network("digits_net")
    together = class_activation_maps(model, images, torch.arange(6))

    alone = [class_activation_maps(model, images[i : i + 1], torch.tensor([i])) for i in range(6)]

    assert torch.allclose(together, torch.cat(alone), atol=1e-7)


def test_without_labels_the_predicted_class_is_explained() -> None:
    model, images = network("digits_net")

    maps = class_activation_maps(model, images)

    assert torch.equal(maps, class_activation_maps(model, images, model(images).argmax(dim=1)))


def test_outputs_are_found_by_the_classes_that_they_stand_for() -> None:
    model, images = network("digits_net")
    expected = class_activation_maps(model, images, torch.full((6,), 7))
    keep_outputs(model, torch.tensor([1, 7]))

    assert torch.equal(class_activation_maps(model, images, torch.full((6,), 7)), expected)
    with pytest.raises(MetricError, match=r"^the model has no output for the classes \[0, 9\]$"):
        class_activation_maps(model, images, torch.tensor([7, 9, 0, 9, 1, 1]))


@pytest.mark.parametrize(
    "layers",
    [
        [nn.Flatten(), nn.Linear(64, 3)],
        [nn.Conv2d(1, 4, 8), nn.Flatten(), nn.Linear(4, 3)],
    ],
    ids=["no convolution", "one place"],
)
def test_a_network_without_a_map_is_told(layers: list[nn.Module]) -> None:
    with pytest.raises(
        MetricError, match=r"^Sequential has no feature map with more than one place before its classifier$"
    ):
        map_layer(nn.Sequential(*layers), torch.zeros(1, 1, 8, 8))


def test_a_named_layer_without_a_map_is_told() -> None:
    model, images = network("digits_net")

    with pytest.raises(
        MetricError, match=r"^11 returned no feature map \(N, channels, h, w\) with more than one place$"
    ):
        class_activation_maps(model, images, torch.arange(6), layer="11")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 7.0, 0.0, 0.0], 0.0),
        ([2.0, 2.0, 2.0, 2.0], 1.0),
        ([0.0, 3.0, 3.0, 0.0], 0.5),
        # The entropy of 1/2, 1/4, 1/8 and 1/8 is 1.75 of 2 bits.
        ([4.0, 2.0, 1.0, 1.0], 0.875),
    ],
    ids=["one place", "even", "two of four", "halves"],
)
def test_entropy_counted_by_hand(values: list[float], expected: float) -> None:
    assert entropy(torch.tensor(values).view(1, 2, 2)).item() == pytest.approx(expected)


def test_entropy_is_that_of_scipy() -> None:
    maps = torch.rand(7, 5, 3, generator=torch.Generator().manual_seed(0))

    found = entropy(maps)

    assert found.tolist() == pytest.approx(scipy_entropy(maps.double().flatten(1), base=15, axis=1).tolist())


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_entropy_and_shift_do_not_depend_on_the_height_of_a_map(scale: float) -> None:
    before, after = torch.rand(2, 4, 3, 3, generator=torch.Generator().manual_seed(0))

    assert entropy(scale * before).tolist() == pytest.approx(entropy(before).tolist(), rel=1e-5)
    assert shift(before, scale * after).tolist() == pytest.approx(shift(before, after).tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0], 0.0),
        ([1.0, 0.0, 0.0, 0.0], [0.0, 5.0, 0.0, 0.0], 1.0),
        ([1.0, 1.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0], 0.5),
        ([4.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], 0.75),
        ([1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0], 1.0),
    ],
    ids=["same place, twice as high", "elsewhere", "half of it", "scattered", "gone"],
)
def test_shift_counted_by_hand(before: list[float], after: list[float], expected: float) -> None:
    found = shift(torch.tensor(before).view(1, 2, 2), torch.tensor(after).view(1, 2, 2))

    assert found.item() == pytest.approx(expected, abs=0)


def test_shift_is_half_the_sum_of_absolute_differences() -> None:
    before, after = torch.rand(2, 6, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    shares = [maps / maps.sum(dim=(1, 2), keepdim=True) for maps in (before, after)]

    expected = (shares[0] - shares[1]).abs().sum(dim=(1, 2)) / 2

    assert shift(before, after).tolist() == pytest.approx(expected.tolist())
    assert shift(after, before).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("measure", [entropy, lambda maps: shift(maps, torch.ones(1, 2, 2))], ids=["entropy", "shift"])
def test_an_empty_map_has_no_number(measure: Any) -> None:
    assert measure(torch.zeros(1, 2, 2)).isnan().all()
