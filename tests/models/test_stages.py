"""Stages of networks, found by one forward pass of two images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer, densenet121, swin_t

from unlearnbench.errors import PluginError
from unlearnbench.models import build
from unlearnbench.models.build import Network, build_network
from unlearnbench.models.stages import CLASSIFIER_INPUT, captured_stages, find_stages
from unlearnbench.registry.declare import declare


def found(model: nn.Module, *shape: int) -> tuple[list[tuple[str, int]], str]:
    stages, last = find_stages(model, torch.rand(1, *shape))
    return [(stage.name, stage.width) for stage in stages], last


@pytest.mark.parametrize(
    ("name", "shape", "stages", "last"),
    [
        ("digits_net", (1, 8, 8), [("2", 16), ("6", 32)], "10"),
        ("resnet20", (3, 32, 32), [("features.stage1", 16), ("features.stage2", 32)], "features.stage3"),
        ("resnet18", (3, 64, 64), [("relu", 64), ("layer1", 64), ("layer2", 128), ("layer3", 256)], "layer4"),
        (
            "mobilenet_v2",
            (3, 64, 64),
            [("features.0", 32), ("features.1", 16), ("features.3", 24), ("features.6", 32), ("features.10", 64),
             ("features.13", 96)],
            "features",
        ),
    ],
)  # fmt: skip
def test_stages_end_where_the_resolution_or_the_width_changes(
    name: str, shape: tuple[int, int, int], stages: list[tuple[str, int]], last: str
) -> None:
    assert found(Network(name, {}, 10, shape).build(0, "original"), *shape) == (stages, last)


def test_layers_within_branches_are_no_stages() -> None:
    stages, last = found(densenet121(num_classes=5), 3, 64, 64)

    assert ("features.denseblock1", 256) in stages
    assert last == "features"
    assert not [name for name, _ in stages if "denselayer" in name]


def test_the_channels_of_swin_stand_last() -> None:
    stages, _ = find_stages(swin_t(num_classes=5), torch.rand(1, 3, 64, 64))

    assert [(stage.name, stage.width, stage.axes) for stage in stages] == [
        ("features.1", 96, (1, 2)),
        ("features.3", 192, (1, 2)),
        ("features.5", 384, (1, 2)),
    ]


def transformer(layers: int) -> nn.Module:
    return VisionTransformer(16, 8, layers, num_heads=2, hidden_dim=12, mlp_dim=24, num_classes=5)


class MeanOfTokens(nn.Module):
    """A transformer that averages its tokens."""

    def __init__(self, layers: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.blocks = nn.ModuleList([nn.TransformerEncoderLayer(12, 2, 24, batch_first=True) for _ in range(layers)])
        self.norm = nn.LayerNorm(12)
        self.head = nn.Linear(12, 5)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens = block(tokens)
        logits: Tensor = self.head(self.norm(tokens.mean(dim=1)))
        return logits


def test_a_class_token_is_taken_where_the_classifier_reads_one() -> None:
    stages, last = find_stages(transformer(3), torch.rand(1, 3, 16, 16))

    assert [(stage.name, stage.token) for stage in stages] == [
        ("encoder.layers.encoder_layer_0", 0),
        ("encoder.layers.encoder_layer_1", 0),
    ]
    assert last == "encoder.layers.encoder_layer_2"


def test_tokens_are_averaged_where_the_classifier_reads_their_mean() -> None:
    stages, last = find_stages(MeanOfTokens(), torch.rand(1, 3, 16, 16))

    assert [(stage.name, stage.axes, stage.token) for stage in stages] == [
        ("blocks.0", (1,), -1),
        ("blocks.1", (1,), -1),
    ]
    assert last == "blocks.2"


def test_of_many_blocks_eight_are_kept() -> None:
    stages, last = found(transformer(12), 3, 16, 16)

    assert len(stages) == 7
    assert last == "encoder.layers.encoder_layer_11"


class Reused(nn.Module):
    """A network that changes its input in place, runs one layer twice, and puts another one before its classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.twice = nn.Conv2d(6, 6, 3, padding=1)
        self.hidden = nn.Linear(6, 9)
        self.head = nn.Linear(9, 4)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        images.sub_(0.5)
        maps = self.twice(F.relu_(self.twice(F.relu_(self.first(images)))))
        return {"logits": self.head(self.hidden(maps.mean((2, 3))).relu())}


def test_a_layer_that_runs_twice_is_no_stage() -> None:
    assert found(Reused(), 3, 8, 8) == ([("first", 6)], "hidden")


def test_a_stage_is_the_mean_over_positions() -> None:
    model = Network("resnet20", {}, 10, (3, 32, 32)).build(0, "original").eval()
    images = torch.rand(5, 3, 32, 32)
    stages, _ = find_stages(model, images[:1])
    with torch.no_grad(), captured_stages(model, stages) as captured:
        model(images)
    with torch.no_grad():
        expected = model.get_submodule("features")[:2](images).mean((2, 3))

    torch.testing.assert_close(captured[0], expected)
    assert [tuple(rows.shape) for rows in captured] == [(5, 16), (5, 32)]


def test_finding_stages_leaves_a_network_as_it_is() -> None:
    model = Network("resnet20", {}, 10, (3, 32, 32)).build(0, "original").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    find_stages(model, torch.rand(1, 3, 32, 32))

    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.children())


def declared_network(*names: str) -> nn.Module:
    @declare(stages=names)
    def plain(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
        return Network("digits_net", {"width": 4}, num_classes, shape).unfilled()

    class Plugin:
        member = ""

        def load(self) -> Any:
            return plain

    with pytest.MonkeyPatch.context() as patch:
        inner = build.find
        patch.setattr(build, "find", lambda kind, name: Plugin() if name == "plain" else inner(kind, name))
        return build_network("plain", {}, 4, (1, 8, 8))


def test_an_architecture_declares_its_stages() -> None:
    assert found(declared_network("0", "7", "11"), 1, 8, 8) == ([("0", 4), ("7", 8)], "11")


def test_the_classifier_s_input_follows_the_declared_stages() -> None:
    assert found(declared_network("0", "7"), 1, 8, 8) == ([("0", 4), ("7", 8)], CLASSIFIER_INPUT)


def test_a_declared_stage_that_is_none_is_named() -> None:
    with pytest.raises(PluginError, match="Sequential declares the stage 'layer1', which is no module that runs once"):
        found(declared_network("layer1"), 1, 8, 8)


@pytest.mark.parametrize("stages", [[], [str(number) for number in range(9)], "layer1"])
def test_too_many_stages_cannot_be_declared(stages: Any) -> None:
    with pytest.raises(ValueError, match="are not 1 to 8 names of modules"):
        declare(stages=stages)
