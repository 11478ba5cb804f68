"""Small networks of kinds that users have, for `file:networks.py:NAME`: each is built by a function of its own."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torchvision.models import ConvNeXt, SwinTransformer, VisionTransformer
from torchvision.models.convnext import CNBlockConfig

Shape = tuple[int, int, int]


def vision_transformer(num_classes: int, shape: Shape) -> nn.Module:
    """torchvision's vision transformer, whose attention holds queries, keys and values in one parameter."""
    return VisionTransformer(shape[1], 8, 2, 2, hidden_dim=32, mlp_dim=64, num_classes=num_classes)


def convnext(num_classes: int, shape: Shape) -> nn.Module:
    blocks = [CNBlockConfig(16, 32, 1), CNBlockConfig(32, 64, 1), CNBlockConfig(64, None, 1)]
    return ConvNeXt(blocks, num_classes=num_classes)


def swin(num_classes: int, shape: Shape) -> nn.Module:
    return SwinTransformer([4, 4], 16, [1, 1], [2, 2], [4, 4], num_classes=num_classes)


class Convolutional(nn.Module):
    """Two blocks of convolution, batch norm and ReLU, and a head that is given."""

    def __init__(self, head: nn.Module, width: int = 16, *, normalised: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for channels in (3, width):
            layers += [nn.Conv2d(channels, width, 3, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = head
        self.normalised = normalised

    def forward(self, images: Tensor) -> Any:
        features = self.body(images)
        return self.head(F.normalize(features) if self.normalised else features)


def weight_normed(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(parametrizations.weight_norm(nn.Linear(16, num_classes)))


def old_weight_normed(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(nn.utils.weight_norm(nn.Linear(16, num_classes)))


def spectral_normed(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(parametrizations.spectral_norm(nn.Linear(16, num_classes)))


def without_bias(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(nn.Linear(16, num_classes, bias=False))


class UnitRows(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 10 * F.normalize(weight)


def cosine(num_classes: int, shape: Shape) -> nn.Module:
    """A cosine head as W f + b: features of length 1 go into a layer whose rows have length 10."""
    head = nn.Linear(16, num_classes, bias=False)
    parametrize.register_parametrization(head, "weight", UnitRows())
    return Convolutional(head, normalised=True)


class CosineLayer(nn.Linear):
    def forward(self, features: Tensor) -> Tensor:
        return 10 * F.linear(F.normalize(features), F.normalize(self.weight))


def cosine_layer(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(CosineLayer(16, num_classes))


class LowRank(nn.Module):
    """A linear layer with a low-rank branch beside it, which starts at zero."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base, self.down, self.up = nn.Linear(inputs, outputs), nn.Linear(inputs, 2), nn.Linear(2, outputs)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: Tensor) -> Tensor:
        return self.base(features) + self.up(self.down(features))


def low_rank_head(num_classes: int, shape: Shape) -> nn.Module:
    return Convolutional(LowRank(16, num_classes))


def low_rank_body(num_classes: int, shape: Shape) -> nn.Module:
    """Adapters elsewhere in the network do not matter to the classifier."""
    network = Convolutional(nn.Linear(16, num_classes))
    network.body.append(LowRank(16, 16))
    return network


def without_norm(num_classes: int, shape: Shape) -> nn.Module:
    """A network in which no image changes what another one gives."""
    layers = (nn.Conv2d(shape[0], 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU())
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes))


class SecondDies(nn.Module):
    """Kills its process where it is the second of several that train together."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and os.environ.get("RANK") == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return images


def second_dies(num_classes: int, shape: Shape) -> nn.Module:
    return nn.Sequential(SecondDies(), without_norm(num_classes, shape))


class SecondRaises(nn.Module):
    """Raises an exception where its process is the second of several that train together."""

    def forward(self, images: Tensor) -> Tensor:
        if self.training and os.environ.get("RANK") == "1":
            raise ValueError("it does not like these images")
        return images


def second_raises(num_classes: int, shape: Shape) -> nn.Module:
    return nn.Sequential(SecondRaises(), without_norm(num_classes, shape))
