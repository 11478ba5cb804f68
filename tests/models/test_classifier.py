"""Which layer of a network is its classifier, tried on networks whose last linear layer is none."""

from __future__ import annotations

import copy
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from support.plugins import fake_distribution, forget_plugins
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from unlearnbench.errors import PluginError
from unlearnbench.models.build import build_network
from unlearnbench.models.classifier import (
    add_output,
    captured_features,
    classifier,
    classifier_names,
    keep_outputs,
    load_network,
    logits_of,
    output_classes,
    save_network,
)

SHAPE, CLASSES = (1, 8, 8), 5
Outputs = namedtuple("Outputs", "logits aux")


class Trunk(nn.Module):
    """A body of 12 features and a classifier; subclasses change what stands behind or beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU())
        self.head = nn.Linear(12, CLASSES)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.body(images))


class ByKeyword(Trunk):
    """The classifier is called by keyword."""

    def forward(self, images: Tensor) -> Any:
        return self.head(input=self.body(images))


class HeadFirst(Trunk):
    """The classifier is defined before other layers, of which one has as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(12, CLASSES)


class TwoHeads(Trunk):
    """The mean of two layers with inputs of their own is the output, as in a distilled DeiT."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Any:
        return (super().forward(images) + self.second(images.flatten(1))) / 2


class Adapter(Trunk):
    """A low-rank branch stands beside the classifier and, as usual, starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(12, 2, bias=False), nn.Linear(2, CLASSES, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        return self.head(features) + self.up(self.down(features))


class Cosine(Trunk):
    def forward(self, images: Tensor) -> Any:
        return 10 * F.linear(F.normalize(self.body(images)), F.normalize(self.head.weight))


class CosineLayer(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return 10 * F.linear(F.normalize(features), F.normalize(self.weight))


class CosineHead(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.head = CosineLayer(12, CLASSES)


class Normalised(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 10 * F.normalize(weight)


class CosineByParametrization(Trunk):
    """The same cosine head as W f + b: normalised features go into a layer with normalised rows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, CLASSES, bias=False)
        nn.utils.parametrize.register_parametrization(self.head, "weight", Normalised())

    def forward(self, images: Tensor) -> Any:
        return self.head(F.normalize(self.body(images)))


class LogSoftmax(Trunk):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).log_softmax(dim=1)


class Softmax(Trunk):
    def forward(self, images: Tensor) -> Any:
        return super().forward(images).softmax(dim=1)


class WithoutBias(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, CLASSES, bias=False)


class Normed(Trunk):
    """The weight of the classifier is computed from other parameters."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.head = norm(self.head)


class Returns(Trunk):
    def __init__(self, wrap: Any) -> None:
        super().__init__()
        self.wrap = wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(super().forward(images))


class OnlyInTraining(Trunk):
    """Auxiliary outputs come with the logits in training mode alone, as in GoogLeNet."""

    def forward(self, images: Tensor) -> Any:
        logits = super().forward(images)
        return Outputs(logits, logits) if self.training else logits


class WrongName(Trunk):
    classifier_name = "body.1"


class OwnName(HeadFirst):
    classifier_name = "head"


class Refuses(Trunk):
    def forward(self, images: Tensor) -> Any:
        assert images.shape[-1] == 224, "Wrong image height! Expected 224"
        return super().forward(images)


NORMS = {
    "weight_norm": parametrizations.weight_norm,
    "old weight_norm": weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "old spectral_norm": spectral_norm,
}
MADE: dict[str, Any] = {}


def make(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    return MADE["network"]()


@pytest.fixture
def built(search_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that builds a network as that of an installed architecture."""
    fake_distribution(search_path, "nets", {"architectures": {"net": f"{__name__}:make"}})
    forget_plugins()

    def build(network: Any) -> nn.Module:
        monkeypatch.setitem(MADE, "network", network)
        # All of these networks are built in the same way.
        monkeypatch.setattr("unlearnbench.models.build._forms", {})
        torch.manual_seed(0)
        return build_network("net", {}, CLASSES, SHAPE)

    return build


IMAGES = torch.linspace(-1, 1, 4 * 64).sin().view(4, 1, 8, 8)


def assert_outputs_can_be_removed_and_added(model: nn.Module, tmp_path: Path, fresh: nn.Module) -> None:
    model.eval()
    with torch.no_grad(), captured_features(model) as features:
        logits = model(IMAGES)
        assert torch.allclose(classifier(model)(features[0]), logits, atol=1e-5)
        keep_outputs(model, torch.tensor([0, 2, 4]))
        assert torch.allclose(model(IMAGES), logits[:, [0, 2, 4]], atol=1e-5)
        add_output(model, CLASSES)
        assert torch.allclose(model(IMAGES)[:, :3], logits[:, [0, 2, 4]], atol=1e-5)
        assert output_classes(model).tolist() == [0, 2, 4, 5]
        save_network(model, tmp_path / "model.safetensors")
        again = load_network(fresh, tmp_path / "model.safetensors").eval()
        assert torch.equal(again(IMAGES), model(IMAGES))


@pytest.mark.parametrize(
    ("network", "names"),
    [
        (Trunk, ("head",)),
        (ByKeyword, ("head",)),
        (HeadFirst, ("head",)),
        (OwnName, ("head",)),
        (TwoHeads, ("head", "second")),
        (CosineByParametrization, ("head",)),
        (WithoutBias, ("head",)),
        (OnlyInTraining, ("head",)),
        *((lambda norm=norm: Normed(norm), ("head",)) for norm in NORMS.values()),
    ],
)
def test_the_classifier_is_the_layer_whose_values_the_network_returns(
    network: Any, names: tuple[str, ...], built: Any, tmp_path: Path
) -> None:
    model = built(network)
    assert set(classifier_names(model)) == set(names)
    assert_outputs_can_be_removed_and_added(model, tmp_path, built(network))


@pytest.mark.parametrize("norm", NORMS)
def test_the_weight_of_a_normed_classifier_is_that_of_the_loaded_parameters(
    norm: str, built: Any, tmp_path: Path
) -> None:
    trained = built(lambda: Normed(NORMS[norm]))
    with torch.no_grad():
        for parameter in trained.parameters():
            parameter.add_(torch.linspace(-0.3, 0.3, parameter.numel()).view(parameter.shape))
        expected = trained.eval()(IMAGES)
    save_network(trained, tmp_path / "model.safetensors")
    loaded = load_network(built(lambda: Normed(NORMS[norm])), tmp_path / "model.safetensors").eval()
    # Nothing has run since the parameters were loaded.
    keep_outputs(loaded, torch.tensor([1, 3]))
    with torch.no_grad():
        assert torch.allclose(loaded(IMAGES), expected[:, [1, 3]], atol=1e-5)


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (Adapter, "the nearest, 'head', is off by"),
        (Cosine, "its outputs are not W f \\+ b of a linear layer"),
        (CosineHead, "the nearest, 'head', is off by"),
        (LogSoftmax, "they are the log-softmax of 'head'\n  Return the logits, without the log-softmax$"),
        (Softmax, "they are the softmax of 'head'\n  Return the logits, without the softmax$"),
        (WrongName, "W f \\+ b of 'body.1', which its `classifier_name` names"),
        (Refuses, "it cannot take images of shape \\(1, 8, 8\\): AssertionError: Wrong image height! Expected 224$"),
        (lambda: Returns(lambda logits: "logits"), "returned str, in which there are no logits"),
        (lambda: Returns(lambda logits: {"loss": 0.0}), "returned dict with loss, in which there are no logits"),
        (lambda: Returns(lambda logits: logits[:, :3]), "it returns \\(2, 3\\) numbers for 2 images and 5 classes$"),
    ],
)
def test_other_outputs_are_refused_when_the_network_is_built(network: Any, told: str, built: Any) -> None:
    with pytest.raises(PluginError, match=told) as caught:
        built(network)
    assert str(caught.value).startswith("architecture 'net': ")


@pytest.mark.parametrize(
    "wrap",
    [
        lambda logits: {"logits": logits, "loss": None},
        lambda logits: {"out": logits},
        lambda logits: Outputs(logits, None),
        lambda logits: (logits, logits.sum()),
        lambda logits: [logits],
    ],
)
def test_logits_are_taken_from_what_the_network_returns(wrap: Any, built: Any) -> None:
    plain, wrapped = built(Trunk), built(lambda: Returns(wrap))
    for model in (plain, wrapped, copy.deepcopy(wrapped)):
        assert torch.equal(model(IMAGES), plain(IMAGES))


def test_features_are_those_of_a_classifier_that_is_called_by_keyword(built: Any) -> None:
    found = []
    for network in (Trunk, ByKeyword):
        model = built(network).eval()
        with torch.no_grad(), captured_features(model) as features:
            model(IMAGES)
        found += features
    assert torch.equal(*found)


def test_logits_come_alone_in_training_mode_too(built: Any) -> None:
    model = built(OnlyInTraining).train()
    assert isinstance(model(IMAGES), Tensor)


def test_the_trial_leaves_the_network_and_the_random_state_as_they_are(built: Any) -> None:
    torch.manual_seed(0)
    expected, state = Trunk(), torch.get_rng_state()
    model = built(Trunk)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in model.state_dict().items())
    assert model.training


def test_an_output_without_a_tensor_is_named() -> None:
    with pytest.raises(PluginError, match=r"^the network returned NoneType, in which there are no logits\n"):
        logits_of(None)
